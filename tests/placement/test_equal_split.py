"""Equal splits hold every expert once, in blocks that differ by at most one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moe_placement.equal_split import equal_split
from moe_placement.plan import PlanError, PoolPlan, Role


def test_remainder_goes_to_the_first_ranks() -> None:
    plan = equal_split("demo", 8, (1, 2), (PoolPlan("host", "cpu", (0, 1, 2)),))
    assert plan.layers[1].slots == ((0, 1, 2), (3, 4, 5), (6, 7))
    assert plan.layers[2] == plan.layers[1]
    assert plan.layers[1].weights == ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0))
    assert set(plan.layers) == {1, 2}


def test_blocks_follow_plan_ranks_and_not_the_order_of_pools() -> None:
    pools = (PoolPlan("odd", "cpu", (1,), "experts"), PoolPlan("even", "cuda", (0, 2)))
    plan = equal_split("demo", 6, (0,), pools)
    assert [plan.experts_of(0, rank) for rank in range(3)] == [(0, 1), (2, 3), (4, 5)]


@pytest.mark.parametrize("role", ["prefill", "decode", "both", "experts"])
def test_every_role_takes_experts(role: Role) -> None:
    plan = equal_split("demo", 4, (0,), (PoolPlan("pool", "cpu", (0, 1), role),))
    assert plan.layers[0].slots == ((0, 1), (2, 3))


def test_a_dense_model_has_no_layers() -> None:
    plan = equal_split("dense", 0, (), (PoolPlan("host", "cpu", (0, 1)),))
    assert plan.layers == {}
    assert plan.num_ranks == 2


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(PlanError, match="1 MoE layers but 0 experts"):
        equal_split("demo", 0, (3,), (PoolPlan("host", "cpu", (0,)),))
    with pytest.raises(PlanError, match="no ranks"):
        equal_split("demo", 4, (0,), ())
    with pytest.raises(PlanError, match="rank 0 is in no pool"):
        equal_split("demo", 4, (0,), (PoolPlan("host", "cpu", (1,)),))


@given(num_experts=st.integers(1, 300), num_ranks=st.integers(1, 40))
def test_any_split_is_whole_contiguous_and_even(num_experts: int, num_ranks: int) -> None:
    pool = PoolPlan("host", "cpu", tuple(range(num_ranks)))
    slots = equal_split("demo", num_experts, (0,), (pool,)).layers[0].slots
    assert [expert for block in slots for expert in block] == list(range(num_experts))
    counts = [len(block) for block in slots]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1
