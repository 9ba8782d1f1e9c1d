"""`moe_plan capacity`: the least that serves a rate, or the most that devices serve."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe_serve.cli import run as moe_serve

Run = Callable[..., Any]
LENGTHS = ("--prompt-tokens", "500", "--output-tokens", "100")
SLO = ("--slo", "ttft=2s,tpot=50ms,percentile=0.9")
LIMITS = ("--mixing", "never", "--phases", "together")
DEVICES = ("--devices", "h200_sxm:8@3,l40s:8@0.5")
PRICED = ("--model", "mixtral_8x7b", *DEVICES, *LENGTHS, *SLO, *LIMITS)


def capacity(run: Run, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("capacity", *words, "--json").out)
    return found


def test_the_goal_says_what_is_least(run: Run) -> None:
    cheap, small = (
        capacity(run, *PRICED, "--rate", "20", "--goal", goal) for goal in ("cheapest", "smallest")
    )
    costs = [found["alternatives"][0]["cost_per_hour"] for found in (cheap, small)]
    devices = [sum(found["devices"].values()) for found in (cheap, small)]
    assert costs[0] <= costs[1]
    assert devices[0] >= devices[1]
    assert cheap["prediction"]["tpot_tail"] <= 0.05
    assert cheap["prediction"]["ttft_tail"] <= 2.0


def test_clients_in_a_loop_are_no_stream(refuse: Run) -> None:
    said = refuse("capacity", *PRICED, "--concurrency", "8")
    assert said.startswith("--concurrency: capacity is planned for a stream; give --rate")


@pytest.mark.slow
def test_more_traffic_takes_no_less(run: Run) -> None:
    few, many = (capacity(run, *PRICED, "--rate", rate) for rate in ("5", "100"))
    costs = [found["alternatives"][0]["cost_per_hour"] for found in (few, many)]
    assert costs[0] < costs[1]


def test_without_a_rate_it_says_how_much_traffic(run: Run) -> None:
    devices = ("--model", "mixtral_8x7b", "--devices", "h200_sxm:2", *LENGTHS, *SLO)
    found = capacity(run, *devices)
    most = found["workload"]["rate"]
    assert most > 1
    assert found["prediction"]["tpot_tail"] <= 0.05
    served = run("solve", *devices, "--rate", f"{0.95 * most:.4f}")
    short = run("solve", *devices, "--rate", f"{1.1 * most:.4f}")
    assert (served.code, short.code) == (0, 1)
    speeds = [point["speed"] for point in found["pareto"]]
    throughputs = [point["throughput_per_device"] for point in found["pareto"]]
    assert speeds == sorted(speeds, reverse=True)
    assert throughputs == sorted(throughputs)


def test_its_files_are_of_the_cluster_that_it_found(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, page = tmp_path / "least.yaml", tmp_path / "least.html"
    words = ("--rate", "40", "--runnable", "--output", config, "--report", page)
    done = run("capacity", *PRICED, *words)
    assert (done.code, done.err) == (0, "")
    assert f"wrote {config}" in done.out
    assert "Pareto front of all workers" in page.read_text()
    assert moe_serve(["--check", "--json", "--config", str(config)]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert (checked["problems"], checked["unserved"]) == ([], [])


def test_a_goal_without_prices_is_the_smallest_or_an_error(
    run: Run, refuse: Callable[..., str]
) -> None:
    words = ("--model", "mixtral_8x7b", "--devices", "h200_sxm:8", *LENGTHS, "--rate", "5")
    assert capacity(run, *words)["alternatives"][0]["cost_per_hour"] is None
    assert "no price_per_hour" in refuse("capacity", *words, "--goal", "cheapest")


def test_what_all_devices_cannot_serve_is_said(run: Run) -> None:
    done = run("capacity", *PRICED, "--rate", "1e6")
    assert (done.code, done.out) == (1, "")
    assert "requests/s are asked for" in done.err
