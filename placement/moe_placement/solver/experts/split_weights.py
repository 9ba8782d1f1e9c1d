"""The best weights for replicas where they stand: a linear program for each layer.

Shapes: N ranks, P planes, S slots of all ranks in one layer; F replicas of experts with several.
"""

import numpy as np
import scipy

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints

_ROUNDS = 3
_LEAST_GAIN = 1e-9


def split_weights(costs: RankCosts, layout: Layout, layers: Ints) -> None:
    """Shift rows between replicas of an expert, in place, so that the slowest rank is fastest.

    Reads are concave in rows: the program has their tangent at the present rows, which is never
    below them, so its optimum is never slower than it says; then once more from there.
    """
    for layer in layers.tolist():
        row = np.array([layer])
        for _ in range(_ROUNDS):
            before = layout.take(row)
            layout.rows_LS[layer] = _optimal_rows(costs, before)
            seconds = [each.slowest(costs)[0] for each in (before, layout.take(row))]
            if seconds[1] >= seconds[0] * (1 - _LEAST_GAIN):
                layout.put(row, before)
                break


def _optimal_rows(costs: RankCosts, layout: Layout) -> Floats:
    """Rows of one layer's slots; as they are where no expert has two replicas."""
    expert_S: Ints = layout.expert_LS[0]
    rows_S: Floats = layout.rows_LS[0]
    replicas_E = np.bincount(expert_S[expert_S >= 0])
    free_F = np.flatnonzero((expert_S >= 0) & (replicas_E[expert_S] > 1))
    if not len(free_F):
        return rows_S
    rank_F, slope_F = layout.ranks[free_F], np.exp(-rows_S[free_F])
    level_S, fixed_rows_S = reads(rows_S), np.array(rows_S)
    level_S[free_F] -= slope_F * rows_S[free_F]
    fixed_rows_S[free_F] = 0.0
    loads_N = (layout.by_rank(level_S[None])[0], layout.by_rank(fixed_rows_S[None])[0])
    scale = float(layout.slowest(costs).max())
    matrix, limits = _planes(costs, rank_F, slope_F, *loads_N, scale)
    expert_F = np.unique(expert_S[free_F], return_inverse=True)[1]
    entries = (np.ones(len(free_F)), (expert_F, np.arange(len(free_F))))
    answer = scipy.optimize.linprog(
        np.eye(len(free_F) + 1)[-1],
        A_ub=matrix,
        b_ub=limits,
        A_eq=scipy.sparse.csr_array(entries, shape=(expert_F.max() + 1, len(free_F) + 1)),
        b_eq=np.bincount(expert_F, rows_S[free_F]),
        method="highs",
    )
    if answer.x is None:
        return rows_S
    optimal_S: Floats = np.array(rows_S)
    optimal_S[free_F] = answer.x[:-1]
    return optimal_S


def _planes(
    costs: RankCosts,
    rank_F: Ints,
    slope_F: Floats,
    reads_N: Floats,
    rows_N: Floats,
    scale: float,
) -> "tuple[scipy.sparse.csr_array, Floats]":
    """Rows of the program, a plane of a rank each, over F rows and the time; in units of scale."""
    num_ranks, column_F = len(rows_N), np.arange(len(rank_F))
    time_N = scipy.sparse.csr_array(np.full((num_ranks, 1), -1.0))
    blocks, limits = [], []
    planes = zip(costs.fixed_PN, costs.per_read_PN, costs.per_row_PN, strict=True)
    for fixed_N, per_read_N, per_row_N in planes:
        seconds_F = (per_read_N[rank_F] * slope_F + per_row_N[rank_F]) / scale
        shape = (num_ranks, len(rank_F))
        block = scipy.sparse.csr_array((seconds_F, (rank_F, column_F)), shape=shape)
        seconds_N = (fixed_N + per_read_N * reads_N + per_row_N * rows_N) / scale
        is_plane_N = np.isfinite(seconds_N)
        blocks.append(scipy.sparse.hstack([block, time_N])[is_plane_N])
        limits.append(-seconds_N[is_plane_N])
    return scipy.sparse.vstack(blocks, format="csr"), np.concatenate(limits)
