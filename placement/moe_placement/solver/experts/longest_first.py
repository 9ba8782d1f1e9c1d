"""Greedy packing: replicate the hottest experts, then place the longest replica first.

Graham's LPT rule with replicas of equal parts, as load balancers of expert parallelism do it, on
the true cost. Shapes: L layers, E experts, N ranks, R replicas; X some layers.
"""

import numpy as np

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.packing import Packing
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints


def longest_first(
    costs: RankCosts, slots_N: Ints, num_slots: int, rows_LE: Floats, *, distinct: bool = True
) -> Layout:
    """Place equal replicas of every expert, `num_slots` in all, each on another rank.

    A replica that finds free slots only on ranks that hold its expert already joins one of these.

    Args:
        distinct: if not, replicas of one expert may meet on a rank, as some balancers let them:
            no valid placement, but what to be measured against.
    """
    packing = Packing(costs, slots_N, num_slots, rows_LE)
    count_LE = _replicas(rows_LE, num_slots, int((slots_N > 0).sum()))
    expert_LR = _in_order(rows_LE, count_LE)
    holds_LN = np.zeros(packing.used_LN.shape, np.bool_)
    layer_L = np.arange(len(rows_LE))
    for turn, expert_L in enumerate(expert_LR.T):
        if turn:
            holds_LN &= (expert_L == expert_LR[:, turn - 1])[:, None]
        rows_L = packing.left_LE[layer_L, expert_L] / count_LE[layer_L, expert_L]
        seconds_LN = costs.seconds(
            packing.reads_LN + reads(rows_L)[:, None], packing.rows_LN + rows_L[:, None]
        )
        may_LN = (packing.used_LN < slots_N) & ~(holds_LN & distinct)
        rank_L = np.where(may_LN, seconds_LN, np.inf).argmin(1)
        layer_X = np.flatnonzero(may_LN.any(1))
        packing.put(layer_X, rank_L[layer_X], expert_L[layer_X], rows_L[layer_X])
        holds_LN[layer_X, rank_L[layer_X]] = True
        count_LE[layer_X, expert_L[layer_X]] -= 1
    packing.place_rest()
    return packing.layout


def _replicas(rows_LE: Floats, num_slots: int, num_ranks: int) -> Ints:
    """Replicas of each expert: one more, again and again, where a replica has the most rows."""
    count_LE = np.ones(rows_LE.shape, np.int64)
    layer_L = np.arange(len(rows_LE))
    for _ in range(min(num_slots, num_ranks * rows_LE.shape[1]) - rows_LE.shape[1]):
        hottest_L = np.where(count_LE < num_ranks, rows_LE / count_LE, -1.0).argmax(1)
        count_LE[layer_L, hottest_L] += 1
    return count_LE


def _in_order(rows_LE: Floats, count_LE: Ints) -> Ints:
    """The experts of all replicas, the one with the most rows per replica first."""
    order_LE = np.argsort(-rows_LE / count_LE, axis=1, kind="stable")
    counts = np.take_along_axis(count_LE, order_LE, axis=1)
    pairs = zip(order_LE, counts, strict=True)
    return np.stack([np.repeat(order_E, count_E) for order_E, count_E in pairs])
