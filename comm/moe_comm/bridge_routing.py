"""Which tokens cross to which pools, and where they enter them: pure index maths.

Shape legend: T tokens here, K experts chosen per token, G slots of all ranks in rank order,
N ranks, C crossings, P pools.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_comm.routing import Keys, RoutingTable, Slots
from moe_comm.terms import Bools, TermOrder
from moe_comm.transport.exchange import Ints


@dataclass(frozen=True, slots=True)
class GroupPools:
    """The pools of an expert-parallel group.

    Attributes:
        names: the pool of each rank of the group, in rank order.
    """

    names: tuple[str, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """The pools, by their first ranks: the order in which their sums are added."""
        return tuple(dict.fromkeys(self.names))

    @property
    def pool_N(self) -> Ints:
        """Index into `order` of each rank's pool."""
        return np.array([self.order.index(name) for name in self.names], dtype=np.int64)

    def ranks_of(self, name: str) -> list[int]:
        return [rank for rank, pool in enumerate(self.names) if pool == name]


class PoolSlots:
    """One layer's slots as the pools number them: each its own, in order of rank.

    Attributes:
        pool_N: the pool of each rank, by number.
        rank_G: the rank that each slot is on.
        pool_G: the pool that each slot is in.
        inner_G: each slot's number in its pool.
    """

    def __init__(self, table: RoutingTable, pools: GroupPools) -> None:
        self.pool_N = pools.pool_N
        self.rank_G = np.arange(len(pools.names)).repeat(table.slots_per_rank)
        self.pool_G = self.pool_N[self.rank_G]
        self.inner_G = np.zeros(table.num_slots, dtype=np.int32)
        for pool in range(len(pools.order)):
            is_in_G = self.pool_G == pool
            self.inner_G[is_in_G] = np.arange(np.count_nonzero(is_in_G))

    def inside(self, pool: int | Ints, slot_TK: Slots) -> Slots:
        """-> the slots' numbers in the pool, or in each token's; -1 for those of other pools."""
        inner_TK: Slots = np.where(
            self.pool_G[slot_TK] == pool, self.inner_G[slot_TK], np.int32(-1)
        )
        return inner_TK


@dataclass(frozen=True, slots=True)
class Crossings:
    """Each token once for every other pool that has experts of it, sorted by rank, then token.

    Attributes:
        token_C: the token.
        pool_C: the pool that it crosses to.
        slot_CK: int32, the numbers in that pool of its experts' slots, by ascending expert id;
            -1 for experts elsewhere.
        counts: of each rank, to enter there.
    """

    token_C: Ints
    pool_C: Ints
    slot_CK: Slots
    counts: Sequence[int]


def cross(slots: PoolSlots, home: int, slot_TK: Slots, keys_T: Keys) -> Crossings:
    """Where the tokens of a rank of pool `home` cross to, given their experts' slots.

    A token enters a pool at the rank with most of its experts; equal ones share such tokens
    evenly, by the tokens' keys.
    """
    num_ranks = len(slots.pool_N)
    cell_TK = slots.rank_G[slot_TK] + np.arange(len(slot_TK))[:, None] * num_ranks
    counts_TN = np.bincount(cell_TK.reshape(-1), minlength=len(slot_TK) * num_ranks)
    is_entry_TN = _entries(counts_TN.reshape(-1, num_ranks), slots.pool_N, home, keys_T)
    rank_C, token_C = is_entry_TN.T.nonzero()
    pool_C = slots.pool_N[rank_C]
    slot_CK = slots.inside(pool_C[:, None], slot_TK[token_C])
    return Crossings(token_C, pool_C, slot_CK, is_entry_TN.sum(0).tolist())


def _entries(counts_TN: Ints, pool_N: Ints, home: int, keys_T: Keys) -> Bools:
    """-> is_entry_TN: one rank for each token and other pool that has experts of it."""
    is_entry_TN = np.zeros(counts_TN.shape, dtype=np.bool_)
    for pool in set(pool_N.tolist()) - {home}:
        ranks = np.flatnonzero(pool_N == pool)
        inner_TN = counts_TN[:, ranks]
        is_most_TN = (inner_TN == inner_TN.max(1, keepdims=True)) & (inner_TN > 0)
        num_most_T = np.maximum(is_most_TN.sum(1), 1).astype(np.uint64)
        turn_T = (keys_T % num_most_T).astype(np.int64) + 1
        is_entry_TN[:, ranks] = is_most_TN & (is_most_TN.cumsum(1) == turn_T[:, None])
    return is_entry_TN


def rows_of_pools(own: TermOrder, crossings: Crossings, pool: int, num_pools: int) -> Ints:
    """-> row_TP: where each pool's sum for a token is, -1 where it has none of its experts; first
    come the sums of `pool`, where the tokens are, then one for each crossing."""
    num_own = own.lengths[0]
    row_TP = np.full((len(own.place_T), num_pools), -1, dtype=np.int64)
    row_TP[:, pool] = np.where(own.place_T < num_own, own.place_T, -1)
    row_TP[crossings.token_C, crossings.pool_C] = num_own + np.arange(len(crossings.token_C))
    return row_TP
