"""Which part of a mixed worker each expert goes to: a quick split for comparing many workers.

Shapes: P parts, L layers, E experts.
"""

import numpy as np

from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints

_MOST_BLOCKS = 64


def split_experts(costs: RankCosts, size_P: Floats, slots_P: Floats, rows_LE: Floats) -> Ints:
    """Longest first: experts, a few at a time, go where their part's mean rank then ends soonest.

    Args:
        costs: of one rank of each part.
        size_P: ranks of each part.
        slots_P: that a part's ranks have together in a layer.

    Returns:
        the part of each expert; (L, E).
    """
    num_layers, num_experts = rows_LE.shape
    holder_LE = np.zeros((num_layers, num_experts), np.int64)
    order_LE = np.argsort(-rows_LE, axis=1, kind="stable")
    layers_L = np.arange(num_layers)
    rows_LP, reads_LP, free_LP = (np.zeros((num_layers, len(size_P))) for _ in range(3))
    free_LP += slots_P
    block = max(1, num_experts // _MOST_BLOCKS)
    for first in range(0, num_experts, block):
        chosen_LB = order_LE[:, first : first + block]
        rows_LB = np.take_along_axis(rows_LE, chosen_LB, axis=1)
        rows_L, reads_L = rows_LB.sum(1), reads(rows_LB).sum(1)
        after_LP = costs.seconds(
            (reads_LP + reads_L[:, None]) / size_P, (rows_LP + rows_L[:, None]) / size_P
        )
        has_room_LP = free_LP >= chosen_LB.shape[1]
        part_L = np.where(
            has_room_LP.any(1), np.where(has_room_LP, after_LP, np.inf).argmin(1), free_LP.argmax(1)
        )
        np.put_along_axis(holder_LE, chosen_LB, part_L[:, None], axis=1)
        rows_LP[layers_L, part_L] += rows_L
        reads_LP[layers_L, part_L] += reads_L
        free_LP[layers_L, part_L] -= chosen_LB.shape[1]
    return holder_LE
