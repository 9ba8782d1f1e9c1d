"""What the machine takes from processes that do nothing but read the clock: below that, no share
can be kept."""

import gc
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from moe_serve.bench.table import Row, Rows

# Loops that begin together, as many as ranks in the other tables.
_NUM_LOOPS = (1, 2)
_RUNS = 3
_START_SECONDS = 2.0
# Reading the clock takes a microsecond at most.
_LEAST_GAP = 2e-4
_LONG_GAP = 5e-3


def machine(_: Path, seconds: float) -> Rows:
    """A row for each number of loops.

    Args:
        seconds: of a third of a run.
    """
    return [_row(num_loops, seconds * _RUNS) for num_loops in _NUM_LOOPS]


def _row(num_loops: int, seconds: float) -> Row:
    begin = time.perf_counter() + _START_SECONDS
    with ProcessPoolExecutor(num_loops, get_context("spawn")) as processes:
        found = list(processes.map(find_gaps, [begin] * num_loops, [seconds] * num_loops))
    gaps = [gap for each in found for gap in each]
    return {
        "of": "what the machine takes from processes that only read the clock",
        "processes": num_loops,
        "seconds": seconds,
        "taken %": 100 * sum(gaps) / (num_loops * seconds),
        "times over 5 ms": sum(gap > _LONG_GAP for gap in gaps),
        "longest ms": 1e3 * max(gaps, default=0.0),
    }


def find_gaps(begin: float, seconds: float) -> Sequence[float]:
    """Seconds of each time in which this process did not run.

    Args:
        begin: by the host's monotonic clock.
    """
    gc.disable()
    while (last := time.perf_counter()) < begin:
        pass
    gaps, end = [], begin + seconds
    while last < end:
        now = time.perf_counter()
        if now - last > _LEAST_GAP:
            gaps.append(now - last)
        last = now
    return gaps
