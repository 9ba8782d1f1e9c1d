"""The benchmarks of the expert solver by name."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moe_placement.bench.objective import equal_devices, true_curves, two_layers, two_speeds
from moe_placement.bench.over_time import over_time
from moe_placement.bench.timing import times

Row = dict[str, Any]

# Each yields its figures row by row.
BENCHMARKS: Mapping[str, Callable[[], Iterator[Row]]] = {
    "two-layers": two_layers,
    "equal-devices": equal_devices,
    "two-speeds": two_speeds,
    "true-curves": true_curves,
    "over-time": over_time,
    "times": times,
}


def title(name: str) -> str:
    """The first line of what is said of a benchmark."""
    described = BENCHMARKS[name].__doc__
    assert described is not None
    return described.strip().splitlines()[0]
