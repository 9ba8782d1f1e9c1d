"""Plans refuse whatever an engine could not run, and say where."""

from dataclasses import replace

import pytest
from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan

POOLS = (
    PoolPlan("big", "cuda", (0, 2), "both", "bfloat16"),
    PoolPlan("host", "cpu", (1,), "experts", "bfloat16"),
)
# Expert 1 is on ranks 0 and 2; rank 1 holds one expert, rank 2 none but its replica.
LAYER = LayerPlan(slots=((0, 1), (2,), (1,)), weights=((1.0, 0.25), (1.0,), (0.75,)))
PLAN = Plan("demo", 3, POOLS, {4: LAYER})


def with_layer(**changes: object) -> Plan:
    return replace(PLAN, layers={4: replace(LAYER, **changes)})  # type: ignore[arg-type]


def test_an_uneven_plan_with_a_replica_is_valid() -> None:
    PLAN.validate()


def test_helpers_answer_by_plan_rank() -> None:
    assert PLAN.num_ranks == 3
    assert PLAN.experts_of(4, 0) == (0, 1)
    assert [PLAN.role_of(rank) for rank in range(3)] == ["both", "experts", "both"]
    assert PLAN.pool_of(2) is POOLS[0]
    assert [PLAN.num_slots(rank) for rank in range(3)] == [2, 1, 1]


def test_helpers_name_what_does_not_exist() -> None:
    with pytest.raises(PlanError, match=r"rank 3 is in no pool; the plan has ranks 0\.\.2"):
        PLAN.role_of(3)
    with pytest.raises(PlanError, match="layer 5 has no experts"):
        PLAN.experts_of(5, 0)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            with_layer(slots=((0, 1), (1,), (1,)), weights=((1.0, 0.25), (0.5,), (0.25,))),
            "layer 4: expert 2 is on no rank",
        ),
        (
            with_layer(weights=((1.0, 0.25), (1.0,), (0.7499,))),
            "layer 4: the weights of expert 1 sum to 0.9999; they must sum to 1",
        ),
        (
            with_layer(weights=((1.0, 0.0), (1.0,), (1.0,))),
            "layer 4, rank 0: expert 1 has weight 0.0; it must be above 0",
        ),
        (
            with_layer(weights=((1.0, float("nan")), (1.0,), (1.0,))),
            "layer 4, rank 0: expert 1 has weight nan",
        ),
        (
            with_layer(slots=((0, 0), (2,), (1,))),
            "layer 4, rank 0: expert 0 is there twice",
        ),
        (
            with_layer(slots=((0, 1), (3,), (1,))),
            "layer 4, rank 1: expert 3 is not among 0..2",
        ),
        (
            with_layer(slots=((0, 1), (-1,), (1,))),
            "layer 4, rank 1: expert -1 is not among 0..2",
        ),
        (
            with_layer(weights=((1.0,), (1.0,), (0.75,))),
            "layer 4, rank 0: 2 slots but 1 weights",
        ),
        (with_layer(slots=((0, 1), (2,))), "layer 4 has slots for 2 ranks of 3"),
        (with_layer(weights=((1.0, 0.25), (1.0,))), "layer 4 has weights for 2 ranks of 3"),
        (
            replace(PLAN, pools=(POOLS[0], replace(POOLS[1], ranks=(2,)))),
            "rank 2 is in pools 'big' and 'host'",
        ),
        (
            replace(PLAN, pools=(POOLS[0], replace(POOLS[1], ranks=(3,)))),
            "3 ranks must be numbered 0..2: rank 1 is in no pool, rank 2 is in pool 'big'",
        ),
        (replace(PLAN, pools=(), layers={}), "the plan's pools have no ranks"),
        (
            replace(PLAN, pools=(POOLS[0], replace(POOLS[1], role="idle"))),  # type: ignore[arg-type]
            "pool 'host' has role 'idle'; use prefill, decode, both, experts",
        ),
    ],
)
def test_a_plan_that_cannot_run_is_refused(plan: Plan, sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan.validate()
    assert sentence in str(caught.value)


def test_weights_may_miss_one_by_rounding_only() -> None:
    with_layer(weights=((1.0, 0.25), (1.0,), (0.75 + 9e-7,))).validate()
    with pytest.raises(PlanError, match="expert 1"):
        with_layer(weights=((1.0, 0.25), (1.0,), (0.75 + 2e-6,))).validate()


# Two workers of a rank on each side, each with all three experts.
SPLIT = (
    PoolPlan("big", "cuda", (0, 2), "both", "bfloat16", num_ep_groups=2),
    PoolPlan("host", "cpu", (1, 3), "experts", "bfloat16", num_ep_groups=2),
)
HALVES = LayerPlan(
    slots=((0, 1), (1, 2), (0, 2), (1,)), weights=((1.0, 0.25), (0.75, 1.0), (1.0, 1.0), (1.0,))
)
WORKERS = Plan("demo", 3, SPLIT, {4: HALVES})


def test_each_ep_group_has_all_experts_to_itself() -> None:
    WORKERS.validate()
    assert WORKERS.ep_groups() == {0: (0, 1), 1: (2, 3)}
    assert [WORKERS.ep_group_of(rank) for rank in range(4)] == [0, 0, 1, 1]
    assert SPLIT[1].is_in(1)
    assert not SPLIT[1].is_in(2)
    assert PLAN.ep_groups() == {0: (0, 2, 1)}


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            replace(WORKERS, layers={4: replace(HALVES, slots=((0, 1), (1, 2), (0, 2), (0,)))}),
            "layer 4, EP group 1: the weights of expert 0 sum to 2; they must sum to 1",
        ),
        (
            replace(
                WORKERS,
                layers={
                    4: LayerPlan(
                        ((0, 1), (1, 2), (0, 2), ()), ((1.0, 0.25), (0.75, 1.0), (1.0, 1.0), ())
                    )
                },
            ),
            "layer 4, EP group 1: expert 1 is on no rank",
        ),
        (
            replace(WORKERS, pools=(SPLIT[0], replace(SPLIT[1], num_ep_groups=3))),
            "pool 'host' has 2 ranks for 3 EP groups; each must have as many",
        ),
        (
            replace(WORKERS, pools=(SPLIT[0], replace(SPLIT[1], num_ep_groups=0))),
            "pool 'host' has 2 ranks for 0 EP groups",
        ),
        (
            replace(WORKERS, pools=(SPLIT[0], replace(SPLIT[1], ep_group=3))),
            "4 EP groups must be numbered 0..3: no pool is in EP group 2",
        ),
    ],
)
def test_ep_groups_that_cannot_run_are_refused(plan: Plan, sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan.validate()
    assert sentence in str(caught.value)
