"""A pool is lost while the front end starts: the others say so, and serve if they can."""

import signal
import time
from typing import Any

import psutil
import pytest
from fault_runs import Run
from world_runs import Worlds, end_well, kill, metric, range_of, tokens

pytestmark = pytest.mark.slow

SECONDS = 60.0
SPARED = ("front", 1, "both", [range_of(0, 12)])
BEREFT = ("front", 1, "both", [range_of(0, 8)])


def lose_far_as_the_front_end_starts(worlds: Worlds, front_pool: Any, **sections: Any) -> Run:
    """The front end is held until the ranks serve, and one of them is gone."""
    pools = [front_pool, ("far", 1, "experts", [range_of(6, 12)])]
    front, far = worlds.launch(pools, **sections)
    deadline = time.monotonic() + SECONDS
    while not (held := front_ends(front)):
        assert time.monotonic() < deadline, front.errors
        time.sleep(0.01)
    held[0].suspend()
    while not (is_idle(far) and is_idle(front)):
        assert time.monotonic() < deadline, front.errors
    kill(far)
    while "lost are 1" not in front.errors:
        assert time.monotonic() < deadline, front.errors
        time.sleep(0.05)
    held[0].send_signal(signal.SIGCONT)
    return front


def front_ends(run: Run) -> list[psutil.Process]:
    return [each for each in run.family() if "moe_serve.edge.main" in each.cmdline()]


def is_idle(run: Run) -> bool:
    """Its ranks have loaded torch, and do next to nothing for a second."""
    ranks = run.ranks()
    if not ranks or not all(has_torch(each) for each in ranks):
        return False
    before = [sum(each.cpu_times()[:2]) for each in ranks]
    time.sleep(1.0)
    after = [sum(each.cpu_times()[:2]) for each in ranks]
    return max(now - then for then, now in zip(before, after, strict=True)) < 0.05


def has_torch(process: psutil.Process) -> bool:
    return any("libtorch" in each.path for each in process.memory_maps())


def test_the_others_serve(worlds: Worlds) -> None:
    front = lose_far_as_the_front_end_starts(worlds, SPARED)
    url = front.wait_until_ready(SECONDS)
    answers = tokens(url)
    assert all(answers) and answers == tokens(url)
    assert metric(url, "moe_serve_lost_ranks") == 1
    end_well(front)


def test_the_others_say_why_they_cannot(worlds: Worlds) -> None:
    """An automatic cache leaves no room for what was lost."""
    cache = {"page_size": 16, "num_pages": 0}
    front = lose_far_as_the_front_end_starts(worlds, BEREFT, cache=cache)
    assert front.wait_for_end(SECONDS) == 2, front.errors
    (line,) = front.error_lines
    assert "experts were lost with their ranks" in line
    assert "open the network" not in line
    assert "ready" not in front.output
