"""Weights levelled step by step, all layers side by side: rows flow to the faster replicas.

Weighted Jacobi steps on the graph of experts and the ranks that hold them; unlike the vertices of
a linear program, every replica keeps about as much as it can. Shapes: L layers, E experts, N
ranks, S slots of all ranks.
"""

import numpy as np

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import Floats

_DAMPING = 0.8
_CLOSE = 1e-4


def level_weights(
    costs: RankCosts, layout: Layout, rows_LE: Floats, goal_L: Floats, num_steps: int
) -> None:
    """Shift rows between replicas, in place, so that the slowest ranks get faster.

    Args:
        goal_L: seconds at which a layer is good enough.
        num_steps: most steps.
    """
    layer = np.arange(len(rows_LE))[:, None]
    expert_LS, ranks_S = layout.expert_LS, layout.ranks
    count_LE = np.zeros((len(rows_LE), rows_LE.shape[1] + 1))
    np.add.at(count_LE, (layer, expert_LS), 1.0)
    may_LS = (expert_LS >= 0) & (count_LE[layer, expert_LS] > 1)
    free_LN = np.maximum(layout.by_rank(may_LS.astype(np.float64)), 1.0)
    padded_LE = np.append(rows_LE, np.zeros((len(rows_LE), 1)), axis=1)
    per_row_N = costs.per_row_PN.max(0)
    ease_N = np.divide(1.0, per_row_N, out=np.zeros_like(per_row_N), where=per_row_N > 0)
    ease_LS = may_LS * (ease_N / free_LN)[:, ranks_S]
    best_LS, best_L = layout.rows_LS.copy(), layout.slowest(costs)
    for _ in range(num_steps):
        if np.all(best_L <= goal_L * (1 + _CLOSE)):
            break
        seconds_LN = costs.seconds(layout.reads_by_rank(), layout.rows_by_rank())
        seconds_LS = seconds_LN[:, ranks_S]
        level_LE = _sums(layout, ease_LS * seconds_LS) / np.maximum(_sums(layout, ease_LS), 1e-300)
        flow_LS = ease_LS * (level_LE[layer, expert_LS] - seconds_LS)
        layout.rows_LS = np.maximum(layout.rows_LS + _DAMPING * flow_LS, 0.0)
        total_LE = np.maximum(_sums(layout, layout.rows_LS), 1e-300)
        layout.rows_LS *= (padded_LE / total_LE)[layer, expert_LS]
        slowest_L = layout.slowest(costs)
        is_better_L = slowest_L < best_L
        best_LS[is_better_L] = layout.rows_LS[is_better_L]
        best_L = np.minimum(best_L, slowest_L)
    layout.rows_LS = best_LS


def _sums(layout: Layout, values_LS: Floats) -> Floats:
    """Sums over each expert's replicas; the last column is of empty slots."""
    num_layers, width = len(values_LS), int(layout.expert_LS.max()) + 2
    column_LS = np.where(layout.expert_LS >= 0, layout.expert_LS, width - 1)
    key_LS = column_LS + np.arange(num_layers)[:, None] * width
    sums = np.bincount(key_LS.reshape(-1), values_LS.reshape(-1), num_layers * width)
    sums_LE: Floats = sums.astype(np.float64).reshape(num_layers, width)
    return sums_LE
