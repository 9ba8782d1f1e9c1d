"""How full the fullest device is, and how full it must be at least.

Shapes: I slices, D devices, K dimensions, X some devices, T kinds of slices.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from moe_placement.packing import exact, patterns
from moe_placement.packing.bound import relaxed_bound
from moe_placement.packing.kinds import Kinds
from moe_placement.packing.layout import Layout
from moe_placement.packing.problem import Floats, Ints, Problem

_ROUNDING = 1e-9
_HALVINGS = 12
_FEW_HALVINGS = 7
# Of the exact program: evenness takes far longer to prove than a number of devices.
_MOST_COLUMNS = 120

# From a packing of all slices, a bound, and seconds, to a packing and bound that are no worse.
Prove = Callable[[Layout, float, float], tuple[Layout, float]]


def level(layout: Layout) -> float:
    """The largest share used, in any dimension, of a device that holds slices."""
    return float(levels_D(layout)[layout.count_D > 0].max(initial=0.0))


def levels_D(layout: Layout) -> Floats:
    """The largest share used of each device."""
    return used_X(layout.left_KD, layout.problem.total_KD)


def used_X(left_KX: Ints, total_KX: Ints) -> Floats:
    """The largest share used where so much is left; more than 1 where less than nothing is."""
    used: Floats = (1 - left_KX / np.maximum(total_KX, 1)).max(0)
    return used


def least_level(problem: Problem, found: float) -> float:
    """A level that every packing of all slices reaches: one at which what devices may be filled up
    to is too little for all slices, by the bound of the fewest devices.

    Args:
        found: the level of a packing of all slices.
    """
    low, high = 0.0, found
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if relaxed_bound(Kinds.of(filled_to(problem, middle))).unplaced:
            low = middle
        else:
            high = middle
    return low


def ways_to_prove(kinds: Kinds) -> tuple[tuple[bool, Prove], ...]:
    """How a packing may be bettered, or its level shown to be the least, and whether each way is
    worth its time."""
    return (
        (kinds.is_repetitive and patterns.few_enough(kinds), _by_patterns),
        (exact.num_columns(kinds) <= _MOST_COLUMNS, _by_proof),
    )


def _by_patterns(best: Layout, least: float, time_limit: float) -> tuple[Layout, float]:
    """A packing of all slices at a lower level, and what the lowest is at least, from patterns of
    devices that may be filled up to a level between the two."""
    low, target = least, level(best)
    for _ in range(_FEW_HALVINGS):
        middle = (low + target) / 2
        problem = filled_to(best.problem, middle)
        mix = patterns.Patterns(Kinds.of(problem), time_limit)
        mix.improve()
        layout = None if mix.bound.unplaced else mix.layout(best.problem)
        if layout is not None and not layout.unplaced and level(layout) < level(best):
            best, target = layout, level(layout)
        elif mix.bound.unplaced:
            low = least = middle
        else:
            low = middle
    return best, least


def _by_proof(best: Layout, least: float, time_limit: float) -> tuple[Layout, float]:
    """The packing of all slices with the lowest level, and that level, where it was found."""
    kinds = Kinds.of(best.problem)
    program = exact.ExactProgram(best.problem, kinds, time_limit)
    found = program.evenest(np.zeros_like(kinds.num_T))
    if found is None:
        return best, least
    layout, answer = found
    return layout if level(layout) < level(best) else best, max(least, answer.bound)


def filled_to(problem: Problem, share: float) -> Problem:
    """The same, with devices of which only a share may be used; some were taken beyond it."""
    taken_KD = problem.total_KD - problem.free_KD
    free_KD = np.floor(problem.total_KD * share * (1 + _ROUNDING)).astype(np.int64) - taken_KD
    free_KD[:, (free_KD < 0).any(0)] = 0
    return replace(problem, free_KD=np.minimum(free_KD, problem.free_KD))
