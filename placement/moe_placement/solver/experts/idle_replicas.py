"""Replicas that buy nothing: their slots are emptied, which spares memory and moves.

Shapes: L layers, E experts, N ranks, S slots of all ranks; X layers with a replica to try.
"""

import numpy as np

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.loads import Loads
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints

_ROUNDING = 1e-9


def drop_idle_replicas(costs: RankCosts, layout: Layout, num_experts: int, limit_L: Floats) -> None:
    """Give the rows of replicas, fewest first, to other replicas of their experts, in place,
    wherever no rank comes to need more than the limit."""
    loads = Loads.of(costs, layout)
    limit_L = limit_L * (1 + _ROUNDING)
    for slot_L in _candidates(loads, num_experts, limit_L):
        layer_X = np.flatnonzero(slot_L >= 0)
        _merge(loads, layer_X, slot_L[layer_X], limit_L[layer_X])


def _candidates(loads: Loads, num_experts: int, limit_L: Floats) -> list[Ints]:
    """Slots to try, one of each layer at a time (-1: none): replicas with no more rows than some
    rank with a replica of their expert may have room for."""
    expert_LS, rows_LS = loads.layout.expert_LS, loads.layout.rows_LS
    layer = np.arange(len(expert_LS))[:, None]
    room_LS = _most_room(loads, limit_L)[:, loads.layout.ranks]
    count_LE = np.zeros((len(expert_LS), num_experts + 1))
    room_LE = np.zeros(count_LE.shape)
    np.add.at(count_LE, (layer, expert_LS), 1)
    np.maximum.at(room_LE, (layer, expert_LS), room_LS)
    may_LS = (expert_LS >= 0) & (count_LE[layer, expert_LS] > 1)
    may_LS &= rows_LS <= room_LE[layer, expert_LS]
    order_LS = np.argsort(np.where(may_LS, rows_LS, np.inf), axis=1, kind="stable")
    sorted_LS = np.where(np.take_along_axis(may_LS, order_LS, axis=1), order_LS, -1)
    return list(sorted_LS[:, : int(may_LS.sum(1).max())].T)


def _most_room(loads: Loads, limit_L: Floats) -> Floats:
    """Rows that each rank may have room for, if they were read for nothing."""
    costs = loads.costs
    room_LN = np.full(loads.rows_LN.shape, np.inf)
    planes = zip(costs.fixed_PN, costs.per_read_PN, costs.per_row_PN, strict=True)
    for fixed_N, per_read_N, per_row_N in planes:
        seconds_LN = fixed_N + per_read_N * loads.reads_LN + per_row_N * loads.rows_LN
        with np.errstate(divide="ignore", invalid="ignore"):
            plane_LN = (limit_L[:, None] - seconds_LN) / per_row_N
        room_LN = np.fmin(room_LN, plane_LN)
    return room_LN


def _merge(loads: Loads, layer_X: Ints, slot_X: Ints, limit_X: Floats) -> None:
    layout, row = loads.layout, np.arange(len(layer_X))
    expert_XS, rows_XS = layout.expert_LS[layer_X], layout.rows_LS[layer_X]
    is_other_XS = expert_XS == expert_XS[row, slot_X][:, None]
    is_other_XS[row, slot_X] = False
    moved_X1 = rows_XS[row, slot_X][:, None]
    rank_S = layout.ranks
    seconds_XS = loads.costs.seconds_at(
        rank_S,
        loads.reads_LN[layer_X][:, rank_S] + reads(rows_XS + moved_X1) - reads(rows_XS),
        loads.rows_LN[layer_X][:, rank_S] + moved_X1,
    )
    seconds_XS = np.where(is_other_XS, seconds_XS, np.inf)
    target_X = seconds_XS.argmin(1)
    fits_X = seconds_XS[row, target_X] <= limit_X
    layer_X, slot_X, target_X = layer_X[fits_X], slot_X[fits_X], target_X[fits_X]
    layout.rows_LS[layer_X, target_X] += layout.rows_LS[layer_X, slot_X]
    layout.rows_LS[layer_X, slot_X] = 0.0
    layout.expert_LS[layer_X, slot_X] = -1
    loads.refresh(layer_X, np.stack([rank_S[slot_X], rank_S[target_X]], axis=1))
