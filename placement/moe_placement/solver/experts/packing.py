"""Experts that wait for a rank, and the slots that are left: what packing keeps straight.

Shapes: L layers, E experts, N ranks, S slots of all ranks; X some layers, one entry each.
"""

import numpy as np

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints


class Packing:
    """A layout being filled. There is always a slot left for each expert that waits.

    Attributes:
        left_LE: rows of each expert that have no rank yet.
        waits_LE: the expert, or what is left of it, has no rank yet.
        spare_L: slots that may go to further replicas.
    """

    def __init__(self, costs: RankCosts, slots_N: Ints, num_slots: int, rows_LE: Floats) -> None:
        self.costs = costs
        self.layout = Layout.empty(len(rows_LE), slots_N)
        self.left_LE = np.array(rows_LE)
        self.waits_LE = np.ones(rows_LE.shape, np.bool_)
        self.spare_L = np.full(len(rows_LE), num_slots - rows_LE.shape[1])
        self.used_LN = np.zeros((len(rows_LE), len(slots_N)), np.int64)
        self.reads_LN = np.zeros(self.used_LN.shape)
        self.rows_LN = np.zeros(self.used_LN.shape)
        self._start_N = layout_starts(slots_N)
        self._rank_S = self.layout.ranks

    def put(self, layer_X: Ints, rank_X: Ints, expert_X: Ints, rows_X: Floats) -> None:
        """Give rows of a waiting expert to ranks that have a free slot and do not hold it."""
        slot_X = self._start_N[rank_X] + self.used_LN[layer_X, rank_X]
        self.layout.expert_LS[layer_X, slot_X] = expert_X
        self.layout.rows_LS[layer_X, slot_X] = rows_X
        self.used_LN[layer_X, rank_X] += 1
        self.reads_LN[layer_X, rank_X] += reads(rows_X)
        self._settle(layer_X, rank_X, expert_X, rows_X)
        self.spare_L[layer_X] -= self.waits_LE[layer_X, expert_X]

    def _settle(self, layer_X: Ints, rank_X: Ints, expert_X: Ints, rows_X: Floats) -> None:
        self.rows_LN[layer_X, rank_X] += rows_X
        left_X = self.left_LE[layer_X, expert_X] - rows_X
        is_all_X = rows_X >= self.left_LE[layer_X, expert_X]
        self.left_LE[layer_X, expert_X] = np.where(is_all_X, 0.0, left_X)
        self.waits_LE[layer_X, expert_X] = ~is_all_X

    def add(self, layer_X: Ints, slot_X: Ints, rows_X: Floats) -> None:
        """Give rows of a waiting expert to replicas of it that are there."""
        rank_X = self._rank_S[slot_X]
        before_X = self.layout.rows_LS[layer_X, slot_X]
        self.layout.rows_LS[layer_X, slot_X] += rows_X
        self.reads_LN[layer_X, rank_X] += reads(before_X + rows_X) - reads(before_X)
        expert_X = self.layout.expert_LS[layer_X, slot_X]
        self._settle(layer_X, rank_X, expert_X, rows_X)
        self.spare_L[layer_X] += 1

    def place_rest(self) -> None:
        """Give what still waits, hottest first, to the ranks that then take the least time."""
        while len(layer_X := np.flatnonzero(self.waits_LE.any(1))):
            left_XE = np.where(self.waits_LE[layer_X], self.left_LE[layer_X], -1.0)
            expert_X = left_XE.argmax(1)
            rows_X = left_XE[np.arange(len(layer_X)), expert_X]
            is_held_XS = self.layout.expert_LS[layer_X] == expert_X[:, None]
            slot_X, rank_X = self._best(layer_X, rows_X, is_held_XS)
            joins_X = slot_X >= 0
            self.add(layer_X[joins_X], slot_X[joins_X], rows_X[joins_X])
            new = ~joins_X
            self.put(layer_X[new], rank_X[new], expert_X[new], rows_X[new])

    def _best(self, layer_X: Ints, rows_X: Floats, is_held_XS: np.ndarray) -> tuple[Ints, Ints]:
        """For each layer the replica to join, or -1, and the rank."""
        slots_N = self.layout.slots_N
        before_XN = np.zeros((len(layer_X), len(slots_N)))
        is_held_XN = np.zeros(before_XN.shape, np.bool_)
        if is_held_XS.any():
            before_XS = np.where(is_held_XS, self.layout.rows_LS[layer_X], 0.0)
            before_XN = self.layout.by_rank(before_XS)
            is_held_XN = self.layout.by_rank(is_held_XS.astype(np.float64)) > 0
        more_XN = reads(before_XN + rows_X[:, None]) - reads(before_XN)
        seconds_XN = self.costs.seconds(
            self.reads_LN[layer_X] + more_XN, self.rows_LN[layer_X] + rows_X[:, None]
        )
        may_XN = is_held_XN | (self.used_LN[layer_X] < slots_N)
        rank_X = np.where(may_XN, seconds_XN, np.inf).argmin(1)
        in_rank_XS = is_held_XS & (self._rank_S == rank_X[:, None])
        return np.where(in_rank_XS.any(1), in_rank_XS.argmax(1), -1), rank_X


def layout_starts(slots_N: Ints) -> Ints:
    """The first slot of each rank."""
    return np.cumsum(slots_N) - slots_N
