"""The phases benchmark: what it predicts, its rows, and one run of it, tiny."""

import json
from pathlib import Path

import psutil
import pytest
from moe_placement.simulator.distribution import distribution_of

from moe_serve.bench.cli import main
from moe_serve.bench.phases import emulated_phases
from moe_serve.bench.phases_client import Answer
from moe_serve.bench.phases_configs import DEPLOYMENTS
from moe_serve.bench.phases_figures import PhasesRun, figure_rows
from moe_serve.bench.phases_load import RequestKind, make_arrivals, mean_workload
from moe_serve.bench.phases_predicted import KindTimes, SimulatedPhases, simulate_phases
from moe_serve.bench.server import serving
from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.control.planning.deployment import plan_deployment
from moe_serve.control.planning.model_json import read_model_json
from moe_serve.control.planning.service import ServicePrediction
from moe_serve.errors import ConfigError

SHORT = RequestKind(name="short", prompt_tokens=32, output_tokens=48, rate=6.0)
LONG = RequestKind(name="long", prompt_tokens=512, output_tokens=16, rate=2.0)
KINDS = (SHORT, LONG)


def predicted(folder: Path, name: str, time_scale: float) -> SimulatedPhases:
    job = emulated_phases(folder, time_scale, 60.0, KINDS)
    path = folder / f"{name}.yaml"
    job.server.write(name, path)
    config = load_config(path)
    model_json = read_model_json(config.models[0])
    config = resolve(config, model_json, 1)
    assert config.num_ranks == 2
    deployment = plan_deployment(config, model_json, [1 << 30] * 2)
    arrivals = make_arrivals(job.kinds, job.seconds, seed=0)
    return simulate_phases(config, deployment, mean_workload(job.kinds), arrivals)


def test_what_is_simulated_shows_what_phases_do_to_each_other(tmp_path: Path) -> None:
    together, apart = (
        predicted(make_folder(tmp_path, name), name, time_scale=1.0) for name in DEPLOYMENTS
    )
    # A chunk of a long prompt holds up all that decode, only where they share the steps.
    assert together.gaps.p99 > 4 * together.gaps.p50
    assert together.gaps.p99 > 2 * apart.gaps.p99
    assert apart.kinds["short"].ttft.p99 < together.kinds["short"].ttft.p99
    assert apart.kinds["long"].ttft.p50 > 10 * apart.kinds["short"].ttft.p50


def test_emulated_time_goes_as_slowly_in_the_simulation(tmp_path: Path) -> None:
    plain, slowed = (
        predicted(make_folder(tmp_path, f"{scale:g}"), "apart", scale) for scale in (1.0, 4.0)
    )
    assert slowed.gaps.p99 == pytest.approx(4 * plain.gaps.p99)
    assert slowed.kinds["long"].ttft.p50 == pytest.approx(4 * plain.kinds["long"].ttft.p50)


def make_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


def a_run(slow: float, overruns: float) -> PhasesRun:
    """A hundred gaps of which two are `slow`."""
    gaps = (0.01,) * 98 + (slow,) * 2
    times = KindTimes(ttft=distribution_of([0.1]), tpot=distribution_of([0.02]))
    return PhasesRun(
        answers=[Answer("short", 0.1, gaps), Answer("long", 0.9, (0.01,))],
        counted={"handovers": 3, "failed": 1, "kv_bytes": 2e6, "overruns": overruns},
        formula=ServicePrediction(
            ttft=0.2,
            ttft_tail=0.3,
            tpot=0.03,
            tpot_tail=0.04,
            gap_p99=0.05,
            request_rate=1.0,
            most_rate=2.0,
            throughput=3.0,
            meets_objective=True,
        ),
        simulated=SimulatedPhases(times, {"short": times, "long": times}, distribution_of([0.06])),
    )


def test_rows_have_apart_beside_together_and_predictions_beside_both() -> None:
    runs = {"together": a_run(0.4, 0.01), "apart": a_run(0.02, 0.03)}
    rows = figure_rows(runs, ["short", "long"])
    found = {(row["requests"], row["figure"]): row for row in rows}
    assert rows[0]["of"].endswith("2 requests, 3 prompts handed over, 1 that failed, 2.0 MB sent")
    assert all(row["overruns"] == 0.03 for row in rows)
    gaps = found["short", "gap p99"]
    assert (gaps["together ms"], gaps["apart ms"]) == (400.0, 20.0)
    assert gaps["together simulated ms"] == gaps["apart formula ms"] == ""
    assert found["short", "gap p50"]["together ms"] == 10.0
    assert found["long", "TTFT p99"]["apart ms"] == 900.0
    assert found["long", "TTFT p99"]["apart simulated ms"] == 100.0
    whole = found["all", "gap p99"]
    assert (whole["apart simulated ms"], whole["apart formula ms"]) == (60.0, 50.0)
    first = found["all", "TTFT p50"]
    assert (first["apart simulated ms"], first["apart formula ms"]) == (100.0, 200.0)


@pytest.mark.slow
def test_it_serves_measures_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "figures.json"
    words = ["--tables", "phases", "--time-scale", "1", "--stream-seconds", "2"]
    # Whatever else this machine has to do: what is refused is tested with other rows.
    monkeypatch.setattr("moe_serve.bench.pools._MOST_OVERRUNS", 1.0)
    assert main(["pools", *words, "--json", str(written)]) == 0
    rows = json.loads(written.read_text())["rows"]
    assert len(rows) == 15 and {row["table"] for row in rows} == {"phases"}
    for row in rows:
        assert row["together ms"] > 0 < row["apart ms"]
        assert " 0 that failed" in row["of"] and " 0 prompts handed over" not in row["of"]
    printed = capsys.readouterr().out
    assert "apart" in printed and "gap p99" in printed
    assert not psutil.Process().children(recursive=True)


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("model: {path: demo}\npools: [{name: a, device: abacus}]\n")
    with (
        pytest.raises(ConfigError, match=r"the server of bad is not ready; .*"),
        serving(config, 1),
    ):
        raise AssertionError("it is ready")
    assert "abacus" in config.with_suffix(".log").read_text()
    assert not psutil.Process().children(recursive=True)
