"""The load of a run, added up from what ranks report."""

from pathlib import Path

import numpy as np
from moe_placement.load.trace_file import load, save
from moe_placement.plan import LayerPlan, Plan, PoolPlan

from moe_serve.control.balancing.expert_load import ExpertLoadRecord
from moe_serve.messages import STEPS_PER_WINDOW, ExpertCounts

LAYER = LayerPlan(((0, 1), (2,), (0, 1, 2)), ((1.0, 1.0), (1.0,), (1.0, 1.0, 1.0)))
POOLS = (PoolPlan("a", "cpu", (0, 1)), PoolPlan("b", "cpu", (2,), role="prefill", ep_group=1))
PLAN = Plan("tiny", 3, POOLS, {1: LAYER, 2: LAYER})


def counts(window: int, *rows: list[int]) -> ExpertCounts:
    return ExpertCounts(window=window, counts_LE=np.array(rows, "<i8").tobytes())


def test_ranks_add_up_by_window_and_by_group() -> None:
    record = ExpertLoadRecord(PLAN)
    assert record.trace() is None
    record.add(0, counts(0, [1, 2, 3], [4, 5, 6]))
    record.add(1, counts(0, [1, 0, 0], [0, 0, 1]))
    record.add(2, counts(2, [0, 0, 7], [7, 0, 0]))
    trace = record.trace()
    assert trace is not None and trace.layers == (1, 2) and trace.model == "tiny"
    assert trace.steps_per_window == STEPS_PER_WINDOW
    assert trace.counts_TLE.tolist() == [
        [[2, 2, 3], [4, 5, 7]],
        [[0, 0, 0], [0, 0, 0]],
        [[0, 0, 7], [7, 0, 0]],
    ]
    assert record.total_LE(0).tolist() == [[2, 2, 3], [4, 5, 7]]
    assert record.total_LE(1).tolist() == [[0, 0, 7], [7, 0, 0]]
    assert record.late_LE().tolist() == [[2, 2, 10], [11, 5, 7]]


def test_a_long_run_stays_small_and_the_planner_reads_it(tmp_path: Path) -> None:
    record = ExpertLoadRecord(PLAN)
    for window in range(1000):
        record.add(window % 3, counts(window, [window, 1, 0], [0, 1, 2]))
    trace = record.trace()
    assert trace is not None and trace.steps_per_window == 4 * STEPS_PER_WINDOW
    assert trace.num_windows == 250
    assert trace.counts_TLE[0].tolist() == [[0 + 1 + 2 + 3, 4, 0], [0, 4, 8]]
    assert trace.counts_TLE.sum() == sum(range(1000)) + 4 * 1000
    save(trace, tmp_path / "load.npz")
    read = load(tmp_path / "load.npz")
    assert np.array_equal(read.counts_TLE, trace.counts_TLE)


def test_one_that_comes_back_counts_from_now_on() -> None:
    record = ExpertLoadRecord(PLAN)
    record.add(0, counts(40, [1, 1, 1], [1, 1, 1]))
    record.restart(2)
    record.add(2, counts(0, [0, 0, 5], [0, 0, 5]))
    record.add(2, counts(1, [0, 0, 3], [0, 0, 3]))
    trace = record.trace()
    assert trace is not None
    assert trace.counts_TLE[40:].tolist() == [[[1, 1, 6]] * 2, [[0, 0, 3]] * 2]
    assert not trace.counts_TLE[:40].any()
    assert record.late_LE().tolist() == [[1, 1, 9]] * 2
