"""From an old placement to a better one: where bytes to load are few, where they gain the most.

Shapes: L layers, N ranks, I steps of a layer's way from the old placement.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.bound import LayerBounds
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.local_search import Change, Search
from moe_placement.solver.experts.old_layout import (
    holdings,
    keeps_rules,
    moved_bytes,
    old_layout,
)
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.experts.relabel import relabelled
from moe_placement.solver.experts.risk import seconds_to_choose_by
from moe_placement.solver.experts.split_weights import split_weights
from moe_placement.solver.experts.spread import keep_standing_by
from moe_placement.solver.problem import ExpertProblem, Floats, Ints, PlacementImpossibleError

_NUM_MOVES = 300
_AS_GOOD = 1e-3


def migrate(
    problem: ExpertProblem,
    costs: RankCosts,
    bounds: LayerBounds,
    fresh: Layout,
    num_slots: int,
    rng: np.random.Generator,
) -> tuple[Layout, float]:
    """The best layout found within the byte budget, and the bytes to load.

    Each layer has a way of local search from the old replicas, weights split anew, and the fresh
    layout, its like ranks renamed to keep what they hold. Layers advance along the lower convex
    hull of seconds against bytes, the steepest stretch of all layers first, while bytes last, and
    stop where more bytes gain next to nothing. So the result is never expected to be slower than
    staying, and is never over budget.

    Raises:
        PlacementImpossibleError: experts without a rank need more bytes than the budget.
    """
    assert problem.old is not None
    held_LNE = holdings(problem.old, problem.rows_LE.shape[1], len(problem.slots_N))
    way = _Way.walk(problem, costs, bounds, held_LNE, num_slots, rng)
    fresh = relabelled(problem, costs, fresh, held_LNE)
    renewed_L = seconds_to_choose_by(costs, fresh, bounds.seconds_L)
    seconds_IL = np.concatenate([way.seconds_IL, renewed_L[None]])
    bytes_IL = np.concatenate(
        [way.bytes_IL, moved_bytes(fresh, held_LNE, problem.expert_bytes_N)[None]]
    )
    chosen_L = choose_steps(seconds_IL, bytes_IL, problem.move_bytes)
    layers = np.arange(len(chosen_L))
    layout = way.rewound(chosen_L)
    renewed = np.flatnonzero(chosen_L == len(seconds_IL) - 1)
    layout.put(renewed, fresh.take(renewed))
    return layout, float(bytes_IL[chosen_L, layers].sum())


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    """Every layer's way from the old replicas; seconds are infinite where rules are broken."""

    end: Layout
    changes: list[Change]
    seconds_IL: Floats
    bytes_IL: Floats

    @staticmethod
    def walk(
        problem: ExpertProblem,
        costs: RankCosts,
        bounds: LayerBounds,
        held_LNE: NDArray[np.bool_],
        num_slots: int,
        rng: np.random.Generator,
    ) -> "_Way":
        layout = old_layout(problem, costs, num_slots)
        keeps_L = keeps_rules(problem, layout)
        _split_anew(problem, costs, layout)
        search = Search(
            num_slots=num_slots,
            goal_L=np.where(keeps_L, bounds.seconds_L * (1 + _AS_GOOD), np.inf),
            num_moves=0 if len(problem.group_E) else _NUM_MOVES,
            domain_N=problem.domain_N if problem.spread else None,
        )
        least_L = bounds.seconds_L
        seconds = [np.where(keeps_L, seconds_to_choose_by(costs, layout, least_L), np.inf)]
        moved = [moved_bytes(layout, held_LNE, problem.expert_bytes_N)]
        changes = []
        for change in search.steps(costs, layout, rng):
            changes.append(change)
            needed_L = seconds_to_choose_by(costs, layout, least_L)
            seconds.append(np.where(keeps_L, needed_L, np.inf))
            moved.append(moved_bytes(layout, held_LNE, problem.expert_bytes_N))
        return _Way(layout, changes, np.stack(seconds), np.stack(moved))

    def rewound(self, step_L: Ints) -> Layout:
        """The layout with each layer as it was after so many steps."""
        for step, change in reversed(list(enumerate(self.changes, start=1))):
            change.undo(self.end, step > step_L)
        return self.end


def _split_anew(problem: ExpertProblem, costs: RankCosts, layout: Layout) -> None:
    """Best weights for the old replicas, in place. Those that need no rows stand by, where that
    costs next to nothing: what is loaded may be of use again."""
    before_L, layers = layout.slowest(costs), np.arange(len(problem.rows_LE))
    split_weights(costs, layout, layers)
    kept = layout.take(layers)
    keep_standing_by(kept, problem.rows_LE)
    most_L = np.minimum(layout.slowest(costs) * (1 + _AS_GOOD), before_L)
    keeps_L = (kept.slowest(costs) <= most_L) | problem.spread
    layout.put(layers[keeps_L], kept.take(layers[keeps_L]))


def choose_steps(seconds_IL: Floats, bytes_IL: Floats, budget: float | None) -> Ints:
    """The step of each layer: along the hulls, the steepest stretch first, while bytes last.

    Raises:
        PlacementImpossibleError: the fewest bytes are more than the budget.
    """
    num_layers = seconds_IL.shape[1]
    hulls = [_hull(seconds_IL[:, layer], bytes_IL[:, layer]) for layer in range(num_layers)]
    chosen_L = np.array([hull[0] for hull in hulls])
    needed = float(bytes_IL[chosen_L, np.arange(num_layers)].sum())
    left = np.inf if budget is None else budget - needed
    if left < 0:
        raise PlacementImpossibleError(
            f"experts that have no rank, or break a rule, need {needed:.4g} bytes moved, "
            f"move_bytes is {budget:.4g}: {-left:.4g} short"
        )
    stretches = []
    for layer, hull in enumerate(hulls):
        for at, (step, following) in enumerate(pairwise(hull)):
            cost = bytes_IL[following, layer] - bytes_IL[step, layer]
            gain = seconds_IL[step, layer] - seconds_IL[following, layer]
            stretches.append((-gain / cost, layer, at, following, cost))
    for _, layer, at, following, cost in sorted(stretches):
        if cost <= left and chosen_L[layer] == hulls[layer][at]:
            chosen_L[layer], left = following, left - cost
    return chosen_L


def _hull(seconds_I: Floats, bytes_I: Floats) -> list[int]:
    """Steps on the lower convex hull from the fewest bytes to as good as the fewest seconds."""
    is_good_I = seconds_I <= seconds_I.min() * (1 + _AS_GOOD)
    most_bytes = bytes_I[is_good_I].min()
    hull: list[int] = []
    for step in np.lexsort((seconds_I, bytes_I)).tolist():
        if not np.isfinite(seconds_I[step]) or bytes_I[step] > most_bytes:
            continue
        if hull and seconds_I[step] >= seconds_I[hull[-1]]:
            continue
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], step, seconds_I, bytes_I):
            hull.pop()
        hull.append(step)
    return hull


def _is_above(first: int, middle: int, last: int, seconds_I: Floats, bytes_I: Floats) -> bool:
    before = (seconds_I[first] - seconds_I[middle]) * (bytes_I[last] - bytes_I[middle])
    after = (seconds_I[middle] - seconds_I[last]) * (bytes_I[middle] - bytes_I[first])
    return bool(before <= after)
