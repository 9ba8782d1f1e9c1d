"""The rows of the pools benchmark, from figures planted here."""

import json
from pathlib import Path

import numpy as np
import pytest
from moe_placement.equal_split import equal_split
from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.device_file import read_devices
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import PoolPlan

from moe_serve.bench import pools
from moe_serve.bench.cli import main
from moe_serve.bench.counting import counting_rows
from moe_serve.bench.pool_costs import Deployed, StepCost, step_cost
from moe_serve.bench.pool_rows import Comparison, PlanRun, plan_rows
from moe_serve.bench.pool_worker import RankFigures, rank_figures
from moe_serve.bench.unlike import declare_device
from moe_serve.config.tree import LinkConfig
from moe_serve.demo_config import demo_config
from moe_serve.messages import RankStats


def rank(expert_seconds: tuple[float, ...], step: float, overruns: int = 0) -> RankFigures:
    """Two steps."""
    parts = {"experts": sum(expert_seconds) / 2, "counting": 0.02}
    parts["dispatch"] = step - sum(parts.values())
    return RankFigures(
        num_steps=2,
        parts=parts,
        expert_seconds=expert_seconds,
        rows=1.0,
        num_segments=10,
        num_overruns=overruns,
    )


def planned(step: float) -> PlanRun:
    """Ranks that take turns at being slow: each has 2 s of a step's experts, both together 3 s."""
    figures = [rank((1.0, 1.0, 1.5, 0.5), step), rank((0.5, 1.5, 0.5, 1.5), step)]
    return PlanRun((5, 3), StepCost(experts=1.0, attention=0.3, links=0.1), figures)


def comparison(step: float = 3.0) -> Comparison:
    equal_cost = StepCost(experts=2.5, attention=0.3, links=0.1)
    equal_figures = [rank((2.5, 2.5) * 2, 6.0, 1), rank((1.0, 1.0) * 2, 6.0)]
    equal = PlanRun((4, 4), equal_cost, equal_figures)
    return Comparison("two ranks", 1.0, 2.0, {"equal split": equal, "planned": planned(step)})


def test_imbalance_that_ranks_take_turns_with_is_seen() -> None:
    run = planned(3.0)
    assert [each.parts["experts"] for each in run.figures] == [2.0, 2.0]
    assert run.experts_seconds == (1.0 + 1.5 + 1.5 + 1.5) / 2


def test_steps_are_compared_with_steps_and_experts_with_experts() -> None:
    equal, best, *_ = plan_rows(comparison())
    assert (equal["slots"], best["slots"]) == ("4 4", "5 3")
    assert best["experts bound ms"] == best["experts predicted ms"] == 2000.0
    assert best["experts ms"] == 2750.0 and best["experts / bound"] == 1.375
    assert best["step bound ms"] == pytest.approx(2.0 * 1400.0)
    assert best["step / bound"] == best["step / predicted"] == pytest.approx(3.0 / 2.8)
    assert equal["step predicted ms"] == pytest.approx(2.0 * 2900.0)
    assert (equal["times faster"], best["times faster"]) == (1.0, 2.0)
    assert (equal["overruns"], best["overruns"]) == (0.05, 0.0)


def test_a_row_says_where_the_first_ranks_step_goes() -> None:
    parts = plan_rows(comparison())[2:4]
    assert [row["plan"] for row in parts] == ["equal split", "planned"]
    assert parts[1]["experts ms"] == 2000.0 and parts[1]["counting ms"] == 20.0
    assert parts[1]["dispatch ms"] == pytest.approx(980.0)


@pytest.mark.parametrize(
    ("step", "met"),
    [(3.0, "yes no yes yes yes"), (3.2, "no no yes yes yes"), (4.4, "no no no yes no")],
)
def test_targets_say_what_is_not_met(step: float, met: str) -> None:
    targets = plan_rows(comparison(step))[4:]
    assert [row["target"] for row in targets] == ["<= 1.1", "<= 1.1", ">= 1.4", "<= 0.2", "<= 0.2"]
    assert " ".join(row["met"] for row in targets) == met
    assert {row["window"] for row in targets} == {"2 steps"}


def test_the_share_of_counting_is_a_target() -> None:
    found = {1: rank((1.0, 1.0), 1.5), 32: rank((1.0, 1.0), 4.0)}
    first, second, *targets = counting_rows(found)
    assert (first["tokens of a step"], second["tokens of a step"]) == (1, 32)
    assert first["counting us"] == 20_000.0
    assert second["share of the step"] == pytest.approx(0.005)
    assert [(row["target"], row["met"]) for row in targets] == [
        ("<= 0.01", "no"),
        ("<= 0.01", "yes"),
    ]


def test_figures_are_of_what_changed() -> None:
    before = RankStats(plan_rank=0, num_steps=2, step_seconds={"experts": 1.0}, num_segments=4)
    after = RankStats(
        plan_rank=0, num_steps=6, step_seconds={"experts": 3.0, "counting": 0.4}, num_segments=9
    )
    found = rank_figures(before, after, [0.25, 0.25])
    assert (found.num_steps, found.num_segments) == (4, 5)
    assert found.parts == {"experts": 0.5, "counting": 0.1}
    assert found.step_seconds == 0.6 and found.expert_seconds == (0.25, 0.25)


def device(folder: Path, name: str, speed: float) -> DeviceSpec:
    path = folder / f"{name}.yaml"
    declare_device(path, speed)
    ((found, _),) = read_devices(path).values()
    return found


def test_a_step_costs_its_slowest_rank_its_links_and_its_attention(tmp_path: Path) -> None:
    """Rows go to two experts: one on each rank, or both on one."""
    spec = ModelSpec.from_config(demo_config())
    names = ("fast", "slow")
    roles = ("both", "experts")
    ranks = tuple(
        PoolPlan(name, "emulated", (number,), role=role, weight_format="float32")
        for number, (name, role) in enumerate(zip(names, roles, strict=True))
    )
    hardware = {"fast": device(tmp_path, "fast", 4.0), "slow": device(tmp_path, "slow", 1.0)}
    link = LinkConfig(between=names, bandwidth=1e6, latency=0.01)
    plan = equal_split("bench", spec.num_experts, spec.moe_layers, ranks)
    held = plan.layers[spec.moe_layers[0]].slots
    costs = []
    for experts in ((held[0][0], held[1][0]), held[0][:2], held[1][:2]):
        shares_LE = np.zeros((len(spec.moe_layers), spec.num_experts))
        shares_LE[:, list(experts)] = 0.5
        costs.append(step_cost(Deployed(spec, hardware, [link]), plan, shares_LE, 64))
    both, fast, slow = costs
    assert slow.experts == pytest.approx(2 * both.experts, rel=0.02)
    assert slow.experts == pytest.approx(4 * fast.experts, rel=0.02)
    crossing = 0.01 + 64 * spec.hidden_size * 4 / 1e6
    assert both.links == pytest.approx(2 * len(spec.moe_layers) * crossing)
    assert both.attention == slow.attention > 0
    assert both.total == both.experts + both.attention + both.links
    alone = step_cost(Deployed(spec, hardware, []), plan, shares_LE, 64)
    assert alone.links == 0.0


def test_figures_of_ranks_that_were_too_slow_are_refused_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is printed, so that it can be seen what was slow."""
    written = tmp_path / "figures.json"
    words = ["pools", "--tables", "declared", "--json", str(written)]

    def planted(overruns: float) -> None:
        row = {"of": "planted ranks", "overruns": overruns}
        monkeypatch.setitem(pools._TABLES, "declared", lambda options, folder: [row])

    planted(0.051)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "overruns" in printed.out
    assert printed.err == (
        "moe_bench: error: --tables declared: the figures are refused: 5.1% of the declared "
        "segments took longer than declared, at most 5% may; raise --time-scale, or run on a quiet "
        "machine\n"
    )
    assert not written.exists()
    planted(0.05)
    assert main(words) == 0
    assert json.loads(written.read_text())["rows"][0]["overruns"] == 0.05
