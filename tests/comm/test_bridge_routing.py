"""Which tokens cross where, against plain loops over tokens."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_comm.bridge_routing import GroupPools, PoolSlots, cross, rows_of_pools
from moe_comm.routing import Keys, RoutingTable, Slots, token_keys
from moe_comm.terms import order_terms

NUM_EXPERTS = 9


def keys(num_tokens: int) -> Keys:
    tokens_T = torch.arange(num_tokens)
    return token_keys(tokens_T * 7, tokens_T).numpy().view(np.uint64)


@dataclass(frozen=True)
class Routed:
    """Tokens of a rank of pool 0, and where their experts are."""

    pools: GroupPools
    table: RoutingTable
    slot_TK: Slots
    keys_T: Keys

    @property
    def where(self) -> list[tuple[int, str, int]]:
        """Rank, pool, and number in the pool of each slot."""
        seen: Counter[str] = Counter()
        places = []
        for rank, held in enumerate(self.table.slots_per_rank):
            for _ in range(held):
                name = self.pools.names[rank]
                places.append((rank, name, seen[name]))
                seen[name] += 1
        return places


@st.composite
def routed(draw: st.DrawFn) -> Routed:
    num_ranks = draw(st.integers(2, 6))
    names = ("a", *draw(st.permutations("abcbca"[: num_ranks - 1])))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    held: list[list[int]] = [[] for _ in names]
    copies = random.integers(0, NUM_EXPERTS, draw(st.integers(0, 8))).tolist()
    for expert in [*range(NUM_EXPERTS), *copies]:
        held[random.integers(num_ranks)].append(expert)
    weights = [[1.0] * len(each) for each in held]
    table = RoutingTable(2, held, weights, NUM_EXPERTS)
    num_tokens = draw(st.sampled_from([0, 1, 5, 40]))
    ids_TK = np.argsort(random.random((num_tokens, NUM_EXPERTS)), axis=1)
    ids_TK = np.sort(ids_TK[:, : draw(st.integers(1, 5))], axis=1)
    keys_T = keys(num_tokens)
    return Routed(GroupPools(names), table, table.choose_slots(ids_TK, keys_T), keys_T)


@settings(deadline=None, max_examples=150)
@given(routed())
def test_a_token_crosses_once_to_each_pool_with_its_experts(case: Routed) -> None:
    crossings = cross(PoolSlots(case.table, case.pools), 0, case.slot_TK, case.keys_T)
    where, order = case.where, case.pools.order
    rank_C = np.repeat(np.arange(len(case.pools.names)), crossings.counts)
    found = list(zip(rank_C.tolist(), crossings.token_C.tolist(), strict=True))
    assert found == sorted(found)
    pairs = {
        (token, where[slot][1])
        for token, slots in enumerate(case.slot_TK.tolist())
        for slot in slots
    }
    crossed = [(token, case.pools.names[rank]) for rank, token in found]
    assert sorted(crossed) == sorted(pair for pair in pairs if pair[1] != order[0])
    assert [order[pool] for pool in crossings.pool_C] == [name for _, name in crossed]
    for (rank, token), slot_K in zip(found, crossings.slot_CK.tolist(), strict=True):
        name, slots = case.pools.names[rank], case.slot_TK[token].tolist()
        assert slot_K == [where[slot][2] if where[slot][1] == name else -1 for slot in slots]
        held = Counter(where[slot][0] for slot in slots if where[slot][1] == name)
        assert held[rank] == max(held.values())


@settings(deadline=None, max_examples=50)
@given(routed())
def test_an_entry_depends_on_nothing_else_in_the_batch(case: Routed) -> None:
    slots = PoolSlots(case.table, case.pools)
    together = cross(slots, 0, case.slot_TK, case.keys_T)
    rank_C = np.repeat(np.arange(len(case.pools.names)), together.counts)
    for token in range(0, len(case.slot_TK), 7):
        alone = cross(slots, 0, case.slot_TK[token : token + 1], case.keys_T[token : token + 1])
        ranks = np.flatnonzero(alone.counts).tolist()
        assert sorted(rank_C[together.token_C == token].tolist()) == ranks


def test_ranks_with_equally_many_experts_share_the_tokens() -> None:
    pools = GroupPools(("a", "b", "b", "b", "b"))
    table = RoutingTable(0, [[0], [1], [2], [3], [4]], [[1.0]] * 5, 5)
    slot_TK = np.tile(np.array([0, 1, 3, 4], dtype=np.int64), (6000, 1))
    counts = cross(PoolSlots(table, pools), 0, slot_TK, keys(6000)).counts
    assert counts[:3] == [0, counts[1], 0] and sum(counts) == 6000
    assert all(abs(counts[rank] - 2000) < 200 for rank in (1, 3, 4))


@settings(deadline=None, max_examples=100)
@given(routed())
def test_each_pools_sum_of_a_token_is_added_once(case: Routed) -> None:
    slots = PoolSlots(case.table, case.pools)
    crossings = cross(slots, 0, case.slot_TK, case.keys_T)
    own = order_terms(slots.inside(0, case.slot_TK) >= 0)
    row_TP = rows_of_pools(own, crossings, 0, len(case.pools.order))
    used = sorted(row_TP[row_TP >= 0].tolist())
    assert used == list(range(own.lengths[0] + len(crossings.token_C)))
    for token, row_P in enumerate(row_TP.tolist()):
        names = {case.where[slot][1] for slot in case.slot_TK[token].tolist()}
        assert {case.pools.order[pool] for pool, row in enumerate(row_P) if row >= 0} == names
        if row_P[0] >= 0:
            assert row_P[0] == own.place_T[token]
