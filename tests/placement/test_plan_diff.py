"""A diff holds exactly the replicas that change hands."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moe_placement.equal_split import equal_split
from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan
from moe_placement.plan_diff import Move, diff

POOL = PoolPlan("host", "cpu", (0, 1, 2))
PLAN = equal_split("demo", 6, (1, 2), (POOL,))

NUM_EXPERTS, NUM_RANKS = 5, 3


def replica_sets() -> st.SearchStrategy[list[frozenset[int]]]:
    """For each expert, the ranks that hold it."""
    holders = st.frozensets(st.integers(0, NUM_RANKS - 1), min_size=1)
    return st.lists(holders, min_size=NUM_EXPERTS, max_size=NUM_EXPERTS)


def plan_of(layers: list[list[frozenset[int]]]) -> Plan:
    placements = {}
    for layer, holders in enumerate(layers):
        slots = tuple(
            tuple(e for e in range(NUM_EXPERTS) if rank in holders[e]) for rank in range(NUM_RANKS)
        )
        weights = tuple(tuple(1 / len(holders[e]) for e in row) for row in slots)
        placements[layer] = LayerPlan(slots, weights)
    plan = Plan("demo", NUM_EXPERTS, (POOL,), placements)
    plan.validate()
    return plan


def test_nothing_moves_between_equal_plans() -> None:
    assert diff(PLAN, replace(PLAN, epoch=1)) == ()


def test_a_moved_expert_and_a_new_replica() -> None:
    swapped = LayerPlan(((0, 1), (2, 4), (3, 5, 0)), ((0.5, 1.0), (1.0, 1.0), (1.0, 1.0, 0.5)))
    new = replace(PLAN, layers={**PLAN.layers, 2: swapped})
    assert diff(PLAN, new) == (
        Move(2, 3, 1, "remove"),
        Move(2, 4, 1, "add"),
        Move(2, 4, 2, "remove"),
        Move(2, 0, 2, "add"),
        Move(2, 3, 2, "add"),
    )


def test_slot_order_and_weights_alone_move_nothing() -> None:
    layer = LayerPlan(((0, 1), (1, 0), ()), ((0.5, 0.5), (0.5, 0.5), ()))
    other = LayerPlan(((1, 0), (1, 0), ()), ((0.9, 0.9), (0.1, 0.1), ()))
    old = Plan("demo", 2, (POOL,), {0: layer})
    assert diff(old, replace(old, layers={0: other})) == ()


def test_a_rank_more_takes_over_experts() -> None:
    new = equal_split("demo", 6, (1,), (replace(POOL, ranks=(0, 1, 2, 3)),))
    old = replace(PLAN, layers={1: PLAN.layers[1]})
    moves = diff(old, new)
    assert Move(1, 5, 3, "add") in moves
    assert Move(1, 5, 2, "remove") in moves


def test_plans_of_two_models_have_no_diff() -> None:
    with pytest.raises(PlanError, match="'demo' with 6 experts to one of 'demo' with 7"):
        diff(PLAN, replace(PLAN, num_experts=7))
    with pytest.raises(PlanError, match="'other'"):
        diff(PLAN, replace(PLAN, model="other"))


@given(old=st.lists(replica_sets(), max_size=3), new=st.lists(replica_sets(), max_size=3))
def test_the_moves_turn_the_old_plan_into_the_new(
    old: list[list[frozenset[int]]], new: list[list[frozenset[int]]]
) -> None:
    def triples(layers: list[list[frozenset[int]]]) -> set[tuple[int, int, int]]:
        return {
            (layer, expert, rank)
            for layer, holders in enumerate(layers)
            for expert, ranks in enumerate(holders)
            for rank in ranks
        }

    held = triples(old)
    moves = diff(plan_of(old), plan_of(new))
    assert len(set(moves)) == len(moves)
    for move in moves:
        place = (move.layer, move.expert, move.rank)
        assert (place in held) == (move.kind == "remove")
        held ^= {place}
    assert held == triples(new)
