"""From an old placement to a better one whose replicas share evenly, within bytes to load.

Shapes: L layers, N ranks, E experts, I steps of a layer's way from the old placement.
"""

import numpy as np

from moe_placement.solver.experts.bound import LayerBounds
from moe_placement.solver.experts.even import EvenSearch, fill_slots, share_evenly
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.migrate import choose_steps
from moe_placement.solver.experts.old_layout import (
    holdings,
    keeps_rules,
    moved_bytes,
    old_layout,
)
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.experts.relabel import relabelled
from moe_placement.solver.problem import ExpertProblem

_AS_GOOD = 1e-3
_MOVES_PER_STEP = 4


def migrate_even(
    problem: ExpertProblem,
    costs: RankCosts,
    bounds: LayerBounds,
    fresh: Layout,
    num_slots: int,
    rng: np.random.Generator,
) -> tuple[Layout, float]:
    """The best layout found within the byte budget, and the bytes to load.

    As `migrate`, but on the way from the old replicas no slot is empty and shares are even.

    Raises:
        PlacementImpossibleError: experts without a rank, and empty slots, need more bytes than the
            budget.
    """
    assert problem.old is not None
    held_LNE = holdings(problem.old, problem.rows_LE.shape[1], len(problem.slots_N))
    way = _way(problem, costs, bounds, num_slots)
    way.append(relabelled(problem, costs, fresh, held_LNE))
    seconds_IL = np.stack(
        [np.where(keeps_rules(problem, each), each.slowest(costs), np.inf) for each in way]
    )
    bytes_IL = np.stack([moved_bytes(each, held_LNE, problem.expert_bytes_N) for each in way])
    chosen_L = choose_steps(seconds_IL, bytes_IL, problem.move_bytes)
    layers = np.arange(len(chosen_L))
    layout = way[0]
    for step in np.unique(chosen_L).tolist():
        taken = layers[chosen_L == step]
        layout.put(taken, way[step].take(taken))
    return layout, float(bytes_IL[chosen_L, layers].sum())


def _way(
    problem: ExpertProblem, costs: RankCosts, bounds: LayerBounds, num_slots: int
) -> list[Layout]:
    """The old replicas, and what they become by local search, which would tear groups apart."""
    layers = np.arange(len(problem.rows_LE))
    layout = old_layout(problem, costs, num_slots)
    if len(problem.group_E):
        share_evenly(layout, problem.rows_LE)
        way = [layout]
    else:
        fill_slots(layout, problem.rows_LE)
        way = [layout.take(layers)]
        search = EvenSearch(costs, problem.rows_LE, bounds.seconds_L * (1 + _AS_GOOD))
        for move, _ in enumerate(search.steps(layout), start=1):
            if move % _MOVES_PER_STEP == 1:
                way.append(layout.take(layers))
        way.append(layout.take(layers))
    return way
