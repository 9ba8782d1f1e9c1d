"""How long the solver and EPLB take, by the wall and by the processor."""

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter, process_time
from typing import Any

import numpy as np

from moe_placement.bench.eplb import place_with_eplb
from moe_placement.bench.instances import scalar_devices, skewed_rows
from moe_placement.solver.place import place_experts

Row = dict[str, Any]

SHAPES = ((32, 320), (144, 288), (320, 640))


def times(num_layers: int = 58, seed: int = 0) -> Iterator[Row]:
    """256 experts on equal devices, all layers at once."""
    for num_ranks, num_slots in SHAPES:
        rows_LE = skewed_rows(num_layers, 256, 1000.0 * num_ranks, seed)
        problem = scalar_devices(rows_LE, np.full(num_ranks, num_slots // num_ranks))
        row: Row = {"layers": num_layers, "devices": num_ranks, "slots": num_slots}
        baseline = partial(place_with_eplb, rows_LE, num_slots=num_slots, num_ranks=num_ranks)
        row |= _timed("ours", partial(place_experts, problem, seed=seed))
        yield row | _timed("eplb", baseline)


def _timed(name: str, work: Callable[[], object]) -> Row:
    wall, processor = perf_counter(), process_time()
    work()
    return {
        f"{name}_seconds": perf_counter() - wall,
        f"{name}_cpu_seconds": process_time() - processor,
    }
