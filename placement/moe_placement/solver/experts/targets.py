"""How many rows and experts each rank should have: the fluid optimum, evened out where it is free.

Shapes: L layers, N ranks, K kinds of ranks.
"""

from dataclasses import replace

import numpy as np

from moe_placement.solver.experts.fluid_program import FluidSolution, Kinds
from moe_placement.solver.problem import Floats, Ints


def evened(fluid: FluidSolution, kinds: Kinds, slots_K: Ints, num_experts: int) -> FluidSolution:
    """The same optimum with experts in proportion to rows, as far as slots go.

    Without a cost of reads, and with slots to spare, the program does not mind which experts go
    where, and its vertices are extreme: all hot ones on one kind. One slot of each rank is kept
    for a part of another expert.
    """
    if kinds.per_read_KP.any() or len(slots_K) == 1:
        return fluid
    all_L1 = (fluid.rows_LK @ kinds.num_ranks_K)[:, None]
    rows_LK = np.minimum(_rows_within(kinds, fluid.seconds_L) * kinds.num_ranks_K, all_L1)
    room_K = np.maximum(slots_K - kinds.num_ranks_K, 0.5 * slots_K)
    experts_LK = _proportional(rows_LK, room_K, num_experts)
    is_free_L = (fluid.slot_price_LK <= 0).all(1) & (room_K.sum() >= num_experts)
    chosen = is_free_L[:, None]
    return replace(
        fluid,
        rows_LK=np.where(chosen, rows_LK / kinds.num_ranks_K, fluid.rows_LK),
        experts_LK=np.where(chosen, experts_LK / kinds.num_ranks_K, fluid.experts_LK),
    )


def _rows_within(kinds: Kinds, limit_L: Floats) -> Floats:
    """Rows that one rank of each kind does within a time limit, by its slowest plane."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rows_LKP = (limit_L[:, None, None] - kinds.fixed_KP) / kinds.per_row_KP
    rows_LKP = np.where(np.isfinite(rows_LKP), np.maximum(rows_LKP, 0.0), np.inf)
    rows_LK: Floats = rows_LKP.min(2)
    return rows_LK


def _proportional(rows_LK: Floats, room_K: Floats, num_experts: int) -> Floats:
    """Experts in proportion to rows; what is over a kind's room goes to the others."""
    experts_LK = np.zeros(rows_LK.shape)
    for _ in range(rows_LK.shape[1]):
        left_L = num_experts - experts_LK.sum(1)
        share_LK = rows_LK * (experts_LK < room_K)
        share_LK = share_LK / np.maximum(share_LK.sum(1, keepdims=True), 1e-300)
        experts_LK = np.minimum(experts_LK + left_L[:, None] * share_LK, room_K)
    return experts_LK
