"""What keeps a step from being shorter, in a word or two.

Shapes: L layers, N ranks, P planes.
"""

import numpy as np

from moe_placement.solver.experts.bound import LayerBounds
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import ExpertProblem

_FAR = 0.05


def what_binds(
    problem: ExpertProblem,
    costs: RankCosts,
    bounds: LayerBounds,
    layout: Layout,
    fresh_seconds: float,
) -> str:
    """The rule that costs the most where the bound, which knows of no rules, is far below;
    else the slots where they make the bound; else the largest part of the slowest ranks' time.

    Args:
        fresh_seconds: of a step that does not have to keep to an old placement.
    """
    seconds_L = layout.slowest(costs)
    total, bound = float(seconds_L.sum()), float(bounds.seconds_L.sum())
    if problem.old is not None and total > fresh_seconds * (1 + _FAR):
        return "bytes to move"
    if total > bound * (1 + _FAR):
        if len(problem.group_E):
            return "groups"
        return "domains" if problem.spread else "slots"
    if float(bounds.seconds_L[bounds.by_slots_L].sum()) > bound / 2:
        return "slots"
    return _largest_part(problem, costs, layout)


def _largest_part(problem: ExpertProblem, costs: RankCosts, layout: Layout) -> str:
    """Of the binding planes of all layers' slowest ranks."""
    reads_LN, rows_LN = layout.reads_by_rank(), layout.rows_by_rank()
    slowest_L = costs.seconds(reads_LN, rows_LN).argmax(1)
    layer = np.arange(len(slowest_L))
    reads_L, rows_L = reads_LN[layer, slowest_L], rows_LN[layer, slowest_L]
    fixed_PL, read_PL, row_PL = (
        plane_PN[:, slowest_L] for plane_PN in (costs.fixed_PN, costs.per_read_PN, costs.per_row_PN)
    )
    plane_L = (fixed_PL + read_PL * reads_L + row_PL * rows_L).argmax(0)
    link_L = problem.row_seconds_N[slowest_L] * rows_L
    parts = {
        "expert bytes": float((read_PL[plane_L, layer] * reads_L).sum()),
        "tokens (FLOPs)": float((row_PL[plane_L, layer] * rows_L - link_L).sum()),
        "link": float(link_L.sum()),
        "fixed costs": float(fixed_PL[plane_L, layer].sum()),
    }
    return max(parts, key=lambda name: parts[name])
