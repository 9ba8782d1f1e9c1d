"""A lower bound of each layer's slowest rank that no placement and no weights can beat.

Shapes: L layers, E experts, N ranks, K kinds of ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.fluid_program import FluidSolution, Kinds, solve_fluid
from moe_placement.solver.experts.possible import most_slots
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.experts.targets import evened
from moe_placement.solver.experts.within_time import most_rows, most_shares
from moe_placement.solver.problem import ExpertProblem, Floats

_BISECTIONS = 30
_REFINEMENTS = 5
_SAME = 1e-9
_CLOSE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class LayerBounds:
    """Attributes:
    seconds_L: the bound.
    fluid: where divisible experts go at that bound; a target for packing.
    by_slots_L: the number of slots makes the bound, not the work.
    """

    seconds_L: Floats
    fluid: FluidSolution
    by_slots_L: NDArray[np.bool_]


def lower_bounds(problem: ExpertProblem, costs: RankCosts) -> LayerBounds:
    """The largest of four bounds, each the optimum of a relaxation.

    1. Divisible experts. A replica with share w of an expert's rows is read with probability
       reads(w * rows) >= w * reads(rows), for `reads` is concave and reads(0) = 0. So a
       placement's shares, summed by kind of rank, are a point of `solve_fluid` with no more
       seconds: planes are linear, so the mean over like ranks is no slower than the slowest, and
       an expert's shares on a rank are at most the one slot they take.
    2. Divisible experts within T. In a placement that takes T, no replica on a rank of kind k has
       more than m = `most_rows` rows, so by the same concavity each share w is read at least
       w * rows * reads(m) / m times; and no rank holds more shares than `most_shares`. With
       these figures, if the program asks for more than T, or has no room, no placement takes T.
       Both relax as T grows, so the largest such T is found by bisection.
    3. Slots. By the same m an expert needs at least rows / m replicas, rounded up, and two where
       domains ask for them; if the sum is more than the slots there are, no placement takes T.
    4. Rows alone. If all ranks, each by its own planes, do fewer rows within T than there are, no
       placement takes T. Bound 1 says as much, save where kinds are of ranks only nearly alike.
    """
    bound = _Bound(problem, costs)
    slots_LK = np.tile(bound.slots_K.astype(np.float64), (len(bound.rows_LE), 1))
    reads_LE1 = reads(bound.rows_LE)[:, :, None]
    reads_LEK = np.tile(reads_LE1, (1, 1, len(bound.slots_K)))
    fluid = solve_fluid(bound.kinds, bound.rows_LE, reads_LEK, slots_LK)
    rows_L = _last_short(bound.has_rows, fluid.seconds_L)
    slots_L = _last_short(bound.has_slots, rows_L)
    by_slots_L = slots_L > rows_L * (1 + _SAME)
    room_L = _last_short(bound.has_room, slots_L)
    seconds_L, fluid = bound.refine(room_L, fluid)
    target = evened(fluid, bound.kinds, bound.slots_K, bound.rows_LE.shape[1])
    return LayerBounds(seconds_L, target, by_slots_L & (slots_L >= seconds_L))


class _Bound:
    """The problem in the form that bounds ask for."""

    def __init__(self, problem: ExpertProblem, costs: RankCosts) -> None:
        self.kinds = Kinds.of(costs)
        self.rows_LE = np.sort(problem.rows_LE, axis=1)
        self.slots_K = np.bincount(costs.kind_N, problem.slots_N, minlength=costs.num_kinds)
        self._slots_of_K = [
            problem.slots_N[costs.kind_N == kind] for kind in range(costs.num_kinds)
        ]
        self._problem = problem
        self._costs = costs

    def has_slots(self, limit_L: Floats) -> NDArray[np.bool_]:
        """Bound 3: whether slots are enough for the replicas that a time limit asks for."""
        most_LK = most_rows(self.kinds, limit_L)
        with np.errstate(divide="ignore", invalid="ignore"):
            replicas_LE = np.ceil(self.rows_LE / most_LK.max(1)[:, None] * (1 - _SAME))
        least = 2.0 if self._problem.spread else 1.0
        replicas_LE = np.where(np.isnan(replicas_LE), least, np.maximum(replicas_LE, least))
        enough_L: NDArray[np.bool_] = replicas_LE.sum(1) <= most_slots(self._problem)
        return enough_L

    def has_rows(self, limit_L: Floats) -> NDArray[np.bool_]:
        """Bound 4: whether ranks do all rows within a time limit."""
        most_L = self._costs.rows_within(limit_L).sum(1)
        enough_L: NDArray[np.bool_] = most_L >= self.rows_LE.sum(1) * (1 - _SAME)
        return enough_L

    def has_room(self, limit_L: Floats) -> NDArray[np.bool_]:
        enough_L: NDArray[np.bool_] = self._caps(limit_L).sum(1) >= self.rows_LE.shape[1] - _SAME
        return enough_L

    def _caps(self, limit_L: Floats) -> Floats:
        """Most shares that all ranks of a kind hold together within a time limit."""
        shares_LK = most_shares(self.kinds, self.rows_LE, limit_L)
        return np.stack(
            [
                np.minimum(slots_n, shares_LK[:, kind, None]).sum(1)
                for kind, slots_n in enumerate(self._slots_of_K)
            ],
            axis=1,
        )

    def within(self, limit_L: Floats, layers: NDArray[np.intp]) -> FluidSolution:
        """Bound 2: the program of some layers with the reads and room of a time limit."""
        most_LK = most_rows(self.kinds, limit_L)[layers]
        with np.errstate(invalid="ignore"):
            per_row_LK = np.where(most_LK > 0, reads(most_LK) / np.maximum(most_LK, 1e-300), 1.0)
        rows_LE = self.rows_LE[layers]
        split_LEK = rows_LE[:, :, None] * np.where(np.isfinite(most_LK), per_row_LK, 0.0)[:, None]
        reads_LEK = np.maximum(reads(rows_LE)[:, :, None], split_LEK)
        return solve_fluid(self.kinds, rows_LE, reads_LEK, self._caps(limit_L)[layers])

    def refine(self, low_L: Floats, fluid: FluidSolution) -> tuple[Floats, FluidSolution]:
        """Raise T while divisible experts within T need more than T."""
        if not self.kinds.per_read_KP.any():
            return low_L, fluid
        layers = np.arange(len(low_L))
        fluid = self.within(low_L * (1 + _SAME), layers)
        low_L, high_L = np.array(low_L), np.maximum(low_L, fluid.seconds_L)
        for _ in range(_REFINEMENTS):
            layers = np.flatnonzero(high_L > low_L * (1 + _CLOSE))
            if not len(layers):
                break
            middle_L = (low_L + high_L) / 2
            is_short = self.within(middle_L, layers).seconds_L >= middle_L[layers]
            low_L[layers] = np.where(is_short, middle_L[layers], low_L[layers])
            high_L[layers] = np.where(is_short, high_L[layers], middle_L[layers])
        return low_L, fluid


def _last_short(is_enough: Callable[[Floats], NDArray[np.bool_]], low_L: Floats) -> Floats:
    """The largest time found too short, by bisection; `low_L` itself where that is enough."""
    is_short_L = ~is_enough(low_L * (1 + _SAME))
    if not is_short_L.any():
        return low_L
    low_L = np.array(low_L)
    high_L = np.where(is_short_L, np.maximum(2 * low_L, 1e-12), low_L * (1 + _SAME))
    while not np.all(is_enough_L := is_enough(high_L)):
        low_L = np.where(is_enough_L, low_L, high_L)
        high_L = np.where(is_enough_L, high_L, 2 * high_L)
    for _ in range(_BISECTIONS):
        middle_L = (low_L + high_L) / 2
        is_enough_L = is_enough(middle_L)
        low_L = np.where(is_short_L & ~is_enough_L, middle_L, low_L)
        high_L = np.where(is_enough_L, middle_L, high_L)
    return low_L
