"""Ranks numbered pool by pool: what each device holds stays, its number may change."""

from moe_placement.plan import LayerPlan, Plan, PoolPlan
from moe_placement.report.rank_order import by_pools

SLOTS = ((0,), (1, 2), (3,), (0, 1), (2, 3))
WEIGHTS = tuple(tuple(1.0 for _ in slots) for slots in SLOTS)


def test_pools_that_lie_apart_are_drawn_together() -> None:
    pools = (
        PoolPlan("decode", "cuda", (0, 4, 3), role="decode", ep_group=0),
        PoolPlan("prefill", "cuda", (1, 2), role="prefill", ep_group=1),
    )
    layer = LayerPlan(((0,), (1, 2), (3,), (0, 1), (2, 3)), WEIGHTS)
    plan = Plan("m", 4, pools, {1: layer, 2: layer})
    moved = by_pools(plan)
    assert [pool.ranks for pool in moved.pools] == [(0, 1, 2), (3, 4)]
    for old, new in zip(plan.pools, moved.pools, strict=True):
        held = [plan.experts_of(1, rank) for rank in old.ranks]
        assert [moved.experts_of(1, rank) for rank in new.ranks] == held
    assert moved.layers[1] is moved.layers[2]
    assert by_pools(moved) is moved


def test_weights_move_with_their_slots() -> None:
    pools = (PoolPlan("a", "cpu", (1,)), PoolPlan("b", "cpu", (0,)))
    plan = Plan("m", 2, pools, {0: LayerPlan(((0,), (0, 1)), ((0.3,), (0.7, 1.0)))})
    moved = by_pools(plan)
    moved.validate()
    assert moved.layers[0] == LayerPlan(((0, 1), (0,)), ((0.7, 1.0), (0.3,)))
