"""Which plans ranks may go on with when others are lost and come back."""

from dataclasses import replace

import pytest
from moe_placement.plan import LayerPlan, Plan, PoolPlan

from moe_serve.survive.next_plan import Standpoint

POOLS = (
    PoolPlan("front", "cpu", (0,)),
    PoolPlan("far", "cpu", (1,), "experts"),
    PoolPlan("farther", "cpu", (2,), "experts"),
)
ALONE = ((0, 1, 2, 3), (), ())


def plan_of(*slots: tuple[int, ...], epoch: int = 0) -> Plan:
    held = [expert for rank in slots for expert in rank]
    weights = tuple(tuple(1 / held.count(expert) for expert in rank) for rank in slots)
    return Plan("tiny", 4, POOLS, {5: LayerPlan(tuple(slots), weights)}, epoch)


WHOLE = plan_of((0, 1), (2, 3), (1, 2), epoch=3)


def test_after_a_loss_there_is_the_plan_in_force_alone() -> None:
    (plan,) = Standpoint(WHOLE, WHOLE, ()).plans({1}, 4)
    assert plan.layers[5].slots == ((0, 1), (), (1, 2))
    assert plan.layers[5].weights == ((1.0, 0.5), (), (0.5, 1.0))
    assert plan.epoch == 5


def test_those_that_come_back_have_their_place_again() -> None:
    standpoint = Standpoint(plan_of(*ALONE, epoch=7), WHOLE, (1, 2))
    best, fallback = standpoint.plans((), 9)
    assert best == replace(WHOLE, epoch=10)
    # What the others hold by now stays, and is shared with those that are there again.
    assert fallback.layers[5].slots == ((0, 1, 2, 3), (2, 3), (1, 2))
    fallback.validate()
    assert fallback.layers[5].weights[0] == pytest.approx((1.0, 2 / 3, 0.5, 0.5))
    assert fallback.epoch == 10


def test_one_of_two_comes_back() -> None:
    best, fallback = Standpoint(plan_of(*ALONE, epoch=7), WHOLE, (1,)).plans({2}, 7)
    assert best.layers[5].slots == ((0, 1), (2, 3), ())
    assert best.layers[5].weights == ((1.0, 1.0), (1.0, 1.0), ())
    assert fallback.layers[5].slots == ((0, 1, 2, 3), (2, 3), ())
    for plan in (best, fallback):
        plan.validate()
