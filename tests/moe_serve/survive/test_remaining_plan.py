"""What is left of a plan: who takes over, what is missing, and where it goes."""

import pytest
from moe_placement.plan import LayerPlan, Plan, PoolPlan

from moe_serve.survive.remaining_plan import (
    Missing,
    choose_ranks,
    find_missing,
    plan_without,
    with_missing,
)

# Ranks 0 and 1 stay; 2 is lost with the only replica of expert 3.
SLOTS = ((0, 1), (1, 2), (0, 2, 3), (0, 1, 2, 3))
WEIGHTS = ((0.5, 0.25), (0.75, 0.25), (0.5, 0.75, 1.0), (1.0, 1.0, 1.0, 1.0))
LOST = {2}


@pytest.fixture
def plan() -> Plan:
    pools = (
        PoolPlan("front", "cpu", (0, 1)),
        PoolPlan("far", "cpu", (2,), "experts"),
        PoolPlan("early", "cpu", (3,), "prefill", ep_group=1),
    )
    plan = Plan("tiny", 4, pools, {5: LayerPlan(SLOTS, WEIGHTS)}, epoch=7)
    plan.validate()
    return plan


def test_replicas_take_over_in_proportion_and_others_stay(plan: Plan) -> None:
    left = plan_without(plan, LOST)
    placed = left.layers[5]
    assert left.epoch == 8
    assert placed.slots == (SLOTS[0], SLOTS[1], (), SLOTS[3])
    # Experts 0 and 2 have one replica now; 1 is shared as it was.
    assert placed.weights == ((1.0, 0.25), (0.75, 1.0), (), WEIGHTS[3])


def test_what_is_missing_goes_where_it_makes_a_whole_plan(plan: Plan) -> None:
    left = plan_without(plan, LOST)
    (missing,) = find_missing(left, LOST)
    assert missing == Missing(group=0, layer=5, expert=3)
    places = choose_ranks(left, [missing], LOST, {0: 1, 1: 1})
    # Rank 0 has the weight of 1.25 experts, rank 1 of 1.75.
    assert places == {missing: 0}
    whole = with_missing(left, places)
    assert whole.layers[5].slots[0] == (0, 1, 3)
    whole.validate()
    assert find_missing(whole, LOST) == []


def test_room_comes_before_load(plan: Plan) -> None:
    left = plan_without(plan, LOST)
    missing = find_missing(left, LOST)
    assert choose_ranks(left, missing, LOST, {0: 0, 1: 2}) == {missing[0]: 1}
    assert choose_ranks(left, missing, LOST, {0: 0, 1: 0}) == {}


def test_a_group_without_ranks_misses_nothing(plan: Plan) -> None:
    left = plan_without(plan, {3})
    assert find_missing(left, {3}) == []
    assert left.layers[5].weights[:3] == WEIGHTS[:3]
