"""`moe_plan simulate`: a plan, or one solved for; traces, failures, and what is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moe_placement.equal_split import equal_split
from moe_placement.model.catalogue import find_model
from moe_placement.plan import PoolPlan
from moe_placement.plan_file import save

Run = Callable[..., Any]
FIGURES = ("--rate", "3", "--prompt-tokens", "500", "--output-tokens", "50")
BUSY = ("--rate", "12", "--prompt-tokens", "500", "--output-tokens", "100", "--requests", "100")
MODEL = ("--model", "mixtral_8x7b", "--devices")
SMALL = (*MODEL, "h200_sxm:2", *FIGURES, "--requests", "60")


def plan_of(path: Path, *pools: PoolPlan) -> Path:
    spec = find_model("mixtral_8x7b")
    save(equal_split("m", spec.num_experts, spec.moe_layers, pools), path)
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return plan_of(tmp_path / "plan.json", PoolPlan("h200_sxm", "cuda", (0, 1)))


def test_a_plan_is_simulated_and_printed(run: Run, plan: Path) -> None:
    done = run("simulate", *SMALL, "--plan", plan, "--slo", "ttft=2s,tpot=50ms")
    assert (done.code, done.err) == (0, "")
    for part in ("60: 60 finished", "TTFT", "p99", "h200_sxm dispatch", "% of all)", "busy"):
        assert part in done.out, part


def test_without_a_plan_one_is_solved_for_and_set_beside(run: Run) -> None:
    words = ("simulate", *MODEL, "h200_sxm:2", *BUSY, "--json")
    found = json.loads(run(*words).out)
    assert found["num_finished"] == found["num_requests"] == 100
    predicted = found["predicted"]
    assert found["tpot"]["p50"] == pytest.approx(predicted["tpot"], rel=0.3)
    assert found["ttft"]["p50"] == pytest.approx(predicted["ttft"], rel=0.5)
    assert json.loads(run(*words).out) == found
    other = json.loads(run(*words, "--seed", "1").out)
    assert other["ttft"] != found["ttft"]


def test_unlike_pools_in_one_group_are_slower_than_the_fast_one_alone(
    run: Run, plan: Path, tmp_path: Path
) -> None:
    mixed = plan_of(
        tmp_path / "mixed.json",
        PoolPlan("h200_sxm", "cuda", (0, 1)),
        PoolPlan("xeon_6980p", "cpu", (2, 3), role="experts"),
    )
    devices = (*MODEL, "h200_sxm:2,xeon_6980p:2", *FIGURES, "--requests", "20", "--json")
    alone = json.loads(run("simulate", *SMALL, "--plan", plan, "--json").out)
    joined = json.loads(run("simulate", *devices, "--plan", mixed).out)
    assert joined["tpot"]["p50"] > 2 * alone["tpot"]["p50"]
    assert list(joined["utilisation"]) == ["h200_sxm + xeon_6980p"]


def test_phases_apart_send_caches_over_a_link(run: Run, tmp_path: Path) -> None:
    pools = (
        PoolPlan("h200_sxm-prefill", "cuda", (0,), role="prefill"),
        PoolPlan("h200_sxm-decode", "cuda", (1,), role="decode", ep_group=1),
    )
    spec = find_model("mixtral_8x7b")
    whole = equal_split("m", 8, spec.moe_layers, (PoolPlan("one", "cuda", (0,)),)).layers[0]
    from moe_placement.plan import LayerPlan, Plan

    layer = LayerPlan(whole.slots * 2, whole.weights * 2)
    path = tmp_path / "apart.json"
    save(Plan("m", 8, pools, dict.fromkeys(spec.moe_layers, layer)), path)
    found = json.loads(run("simulate", *SMALL, "--plan", path, "--json").out)
    token = spec.kv_elements_per_token * 2
    # Every prompt's cache crosses once, in whole pages or a little less.
    assert found["link_bytes"]["prefill to decode"] == pytest.approx(60 * 500 * token, rel=0.15)
    assert set(found["utilisation"]) == {"h200_sxm-prefill", "h200_sxm-decode"}


def test_a_trace_is_played_at_its_own_rate_or_another(run: Run, plan: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{second / 2},400,20" for second in range(40)]
    trace.write_text("\n".join(["arrival,prompt_tokens,output_tokens", *rows]) + "\n")
    words = (*MODEL, "h200_sxm:2", "--trace", trace, "--plan", plan, "--json")
    own = json.loads(run("simulate", *words).out)
    faster = json.loads(run("simulate", *words, "--rate", "8").out)
    fewer = json.loads(run("simulate", *words, "--requests", "10").out)
    assert (own["num_finished"], fewer["num_finished"]) == (40, 10)
    assert own["seconds"] == pytest.approx(19.5, rel=0.1)
    assert faster["seconds"] == pytest.approx(19.5 / 4, rel=0.2)


def test_a_failure_sends_requests_again(run: Run, plan: Path) -> None:
    words = ("simulate", *SMALL, "--plan", plan, "--json")
    calm, failed = (json.loads(run(*words, *more).out) for more in ((), ("--fail", "0@5-6")))
    assert calm["num_resubmitted"] == 0 < failed["num_resubmitted"]
    assert failed["num_finished"] == 60
    assert failed["ttft"]["p99"] > calm["ttft"]["p99"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--requests", "0"), "--requests is 0; it must be at least 1"),
        (("--scheduler", "fifo"), "--scheduler: scheduler 'fifo' is not installed; use one of"),
        (("--fail", "now"), "--fail 'now': write WORKER@FROM-UNTIL, as 0@60-90"),
        (("--fail", "7@3"), "--fail: worker 7 is to fail"),
        (("--plan", "none.json"), "plan file none.json cannot be read"),
        (("--devices", "b200_sxm:8"), "pool 'h200_sxm' is of no group of the cluster (b200_sxm)"),
        (("--model", "qwen3_30b_a3b"), "experts"),
    ],
)
def test_wrong_input_is_one_line(
    refuse: Callable[..., str], plan: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in refuse("simulate", *SMALL, "--plan", plan, *words)


def test_how_requests_come_must_be_said(refuse: Callable[..., str]) -> None:
    words = (*MODEL, "h200_sxm:2", "--prompt-tokens", "9", "--output-tokens", "9")
    assert refuse("simulate", *words).startswith("--rate, --concurrency or --trace")


def test_a_plan_that_has_no_room_is_refused(refuse: Callable[..., str], tmp_path: Path) -> None:
    tight = plan_of(tmp_path / "tight.json", PoolPlan("l40s", "cuda", (0,)))
    words = (*MODEL, "l40s:1", *FIGURES, "--plan", tight)
    assert "cuda:0 lacks " in refuse("simulate", *words)
