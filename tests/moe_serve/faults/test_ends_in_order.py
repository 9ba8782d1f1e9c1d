"""Ranks agree to stop, and the membership changes in the same moment: all end in order."""

import signal
import sys
import time
from pathlib import Path

import pytest
from fault_runs import Run
from world_runs import Worlds, kill, range_of, tokens, wait_for_metric

pytestmark = pytest.mark.slow

LATE = Path(__file__).parent / "late_rank.py"
POOLS = [
    ("front", 2, "both", [range_of(0, 8), range_of(4, 12)]),
    ("far", 1, "experts", [range_of(6, 12)]),
]


def late(config: Path, *words: str) -> list[str]:
    return [sys.executable, str(LATE), "--config", str(config), *words]


def drain(front: Run, url: str) -> None:
    """Until one of its ranks has left its loop, and the other one waits for the last header."""
    front.process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 20.0
    while has_front_end(front):
        assert time.monotonic() < deadline, "the front end does not end"
        time.sleep(0.05)


def has_front_end(run: Run) -> bool:
    return any("moe_serve.edge.main" in each.cmdline() for each in run.family())


def test_a_pool_comes_back_at_the_header_that_says_stop(worlds: Worlds) -> None:
    url, (front, far) = worlds.start(POOLS, command=late)
    tokens(url)
    kill(far)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    again = worlds.start_again("far")
    while not again.ranks():
        time.sleep(0.05)
    drain(front, url)
    assert front.process.poll() is None, "it ends without those that may still go on"
    for run in (front, again):
        assert run.wait_for_end(60.0) == 0, run.errors


def test_a_pool_is_lost_at_the_header_that_says_stop(worlds: Worlds) -> None:
    url, (front, far) = worlds.start(POOLS, command=late)
    tokens(url)
    drain(front, url)
    assert front.process.poll() is None
    kill(far)
    assert front.wait_for_end(60.0) == 0, front.errors
