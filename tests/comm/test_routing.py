"""Replica choice and row order, against plain loops and counted shares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_comm.routing import (
    Keys,
    RoutingTable,
    Slots,
    inverse_order,
    rows_per_rank,
    slot_order,
    token_keys,
)
from moe_comm.transport.exchange import Ints

NUM_EXPERTS = 6
SLOTS = [[0, 1, 2], [], [3, 0, 4], [5, 0]]
WEIGHTS = [[0.5, 1.0, 1.0], [], [1.0, 0.3, 1.0], [1.0, 0.2]]


def keys_of(token_ids_T: torch.Tensor, position_T: torch.Tensor) -> Keys:
    return token_keys(token_ids_T, position_T).numpy().view(np.uint64)


def keys(num_tokens: int) -> Keys:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 150_000, (num_tokens,), generator=generator)
    return keys_of(tokens, torch.arange(num_tokens))


def random_ids(num_tokens: int, num_chosen: int) -> Ints:
    return np.random.default_rng(1).integers(0, NUM_EXPERTS, (num_tokens, num_chosen))


def table(layer: int = 3) -> RoutingTable:
    return RoutingTable(layer, SLOTS, WEIGHTS, NUM_EXPERTS)


def ranks_of(slot_TK: Slots) -> Slots:
    """The rank that each of the slots of `SLOTS` lives on."""
    rank_G = np.repeat(np.arange(len(SLOTS)), [len(held) for held in SLOTS])
    return rank_G[slot_TK]


def shares_of_expert_0(layer: int, keys_T: Keys) -> list[float]:
    ids_TK = np.zeros((len(keys_T), 1), dtype=np.int64)
    rank_TK = ranks_of(table(layer).choose_slots(ids_TK, keys_T))
    return [float((rank_TK == rank).mean()) for rank in range(len(SLOTS))]


def test_every_choice_is_a_replica_of_its_expert() -> None:
    ids_TK = random_ids(500, 4)
    slot_TK = table().choose_slots(ids_TK, keys(500))
    expert_G = np.array([expert for held in SLOTS for expert in held])
    assert (expert_G[slot_TK] == ids_TK).all()


def test_replicas_share_their_experts_tokens_by_weight() -> None:
    assert shares_of_expert_0(3, keys(40_000)) == pytest.approx([0.5, 0, 0.3, 0.2], abs=0.01)


def test_one_token_at_many_positions_is_shared_by_weight_too() -> None:
    keys_T = keys_of(torch.full((40_000,), 7), torch.arange(40_000))
    assert shares_of_expert_0(0, keys_T) == pytest.approx([0.5, 0, 0.3, 0.2], abs=0.01)


def test_layers_choose_independently() -> None:
    keys_T, ids_TK = keys(20_000), np.zeros((20_000, 1), dtype=np.int64)
    first, second = (ranks_of(table(n).choose_slots(ids_TK, keys_T)) for n in (1, 2))
    agreement = 0.5**2 + 0.3**2 + 0.2**2
    assert (first == second).mean() == pytest.approx(agreement, abs=0.015)


def test_choice_depends_on_nothing_else_in_the_batch() -> None:
    ids_TK, keys_T = random_ids(64, 3), keys(64)
    together = table().choose_slots(ids_TK, keys_T)
    order = np.random.default_rng(2).permutation(64)[:20]
    assert (table().choose_slots(ids_TK[order], keys_T[order]) == together[order]).all()


def test_a_replica_without_weight_is_never_chosen() -> None:
    lopsided = RoutingTable(0, [[0], [0], [0]], [[0.0], [0.1], [0.0]], 1)
    slot_TK = lopsided.choose_slots(np.zeros((5000, 1), dtype=np.int64), keys(5000))
    assert np.unique(slot_TK).tolist() == [1]


def test_keys_are_distinct_and_even_in_every_bit() -> None:
    keys_T = token_keys(torch.arange(300).repeat(300), torch.arange(300).repeat_interleave(300))
    assert len(keys_T.unique()) == 90_000
    bits = (keys_T[:, None] >> torch.arange(64)) & 1
    assert (bits.double().mean(0) - 0.5).abs().max().item() < 0.01


def test_rows_per_rank_counts_ranks_without_slots() -> None:
    counts_G = np.array([1, 2, 3, 4, 5, 6, 7, 8])
    assert rows_per_rank(counts_G, table().slots_per_rank) == [6, 0, 15, 15]


@pytest.mark.parametrize(
    ("slots", "weights", "sentence"),
    [
        ([[0], [2]], [[1.0], [1.0]], "1 of 3 experts have no replica .* expert 1"),
        ([[0, 1, 2, 3]], [[1.0] * 4], "rank 0 holds expert 3, the model has 3"),
        ([[0, 1], [2]], [[1.0], [1.0]], "different shapes"),
        ([[0, 1, 2]], [[1.0, -1.0, 1.0]], "rank 0 gives expert 1 the weight -1.0"),
        ([[0, 1, 2]], [[1.0, float("nan"), 1.0]], "weight nan"),
        ([[0, 1, 2]], [[1.0, 0.0, 1.0]], "no replica with a weight above 0"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    slots: list[list[int]], weights: list[list[float]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        RoutingTable(0, slots, weights, 3)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5).flatmap(
        lambda num_slots: st.lists(
            st.lists(st.integers(0, 3), min_size=num_slots, max_size=num_slots), min_size=1
        )
    )
)
def test_slot_order_sorts_by_slot_and_keeps_senders_in_order(counts: list[list[int]]) -> None:
    rows = [
        (slot, sender, place)
        for sender, row in enumerate(counts)
        for slot, count in enumerate(row)
        for place in range(count)
    ]
    assert [rows[index] for index in slot_order(np.array(counts))] == sorted(rows)


def test_slot_order_of_a_rank_without_slots_is_empty() -> None:
    assert slot_order(np.zeros((3, 0), dtype=np.int64)).tolist() == []


def test_inverse_order_undoes_an_order() -> None:
    order_R = np.random.default_rng(0).permutation(50)
    assert inverse_order(order_R)[order_R].tolist() == list(range(50))
    assert order_R[inverse_order(order_R)].tolist() == list(range(50))
