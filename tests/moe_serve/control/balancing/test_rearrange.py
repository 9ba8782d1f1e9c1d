"""When the front end moves experts, and by which sound plans."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from moe_placement.load.trace import Ints
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan
from moe_placement.plan_diff import diff

from moe_serve.config.tree import CacheConfig, Config, ModelConfig, PlacementConfig, PoolConfig
from moe_serve.control.balancing.balance import LoadQuestion, Rearrangement, ServedDeployment
from moe_serve.control.balancing.rearrange import rearrange
from moe_serve.control.planning.deployment import plan_deployment, read_spec
from moe_serve.demo_config import demo_config
from moe_serve.survive.remaining_plan import (
    choose_ranks,
    find_missing,
    plan_without,
    with_missing,
)

SPEC: ModelSpec = read_spec(demo_config())
EXPERT_BYTES = SPEC.expert_bytes("float32")
# Rows are slow to compute and experts quick to load.
ROW_SECONDS, BYTES_PER_SECOND = 1e-4, 1e9


def served(**placement: object) -> ServedDeployment:
    config = Config(
        models=(ModelConfig(path="demo", name="demo", dtype="float32", max_context=256),),
        pools=(PoolConfig(name="host", device="cpu", ranks=2, weights="float32"),),
        placement=PlacementConfig(rebalance_every=1.0, move_bytes_per_step=1, **placement),
    )
    planned = plan_deployment(config, demo_config(), [1 << 30] * 2)
    return ServedDeployment(
        config=config, plan=planned.plan, memories=planned.memories, reasons=planned.reasons
    )


def counts(first_half: int, second_half: int) -> Ints:
    """Rows of every layer's experts; an equal split gives each half to one rank."""
    row_E = np.repeat([first_half, second_half], 8) + np.arange(16) % 3
    return np.tile(row_E, (len(SPEC.moe_layers), 1))


def ask(server: ServedDeployment, counts_LE: Ints, **changes: object) -> Rearrangement:
    question = LoadQuestion(
        plan=server.plan,
        group=0,
        counts_LE=counts_LE.astype("<i8").tobytes(),
        num_steps=100,
        row_seconds=ROW_SECONDS,
        bytes_per_second=BYTES_PER_SECOND,
    )
    return rearrange(server, SPEC, {}, replace(question, **changes))


def rows_of_ranks(plan: Plan, counts_LE: Ints, ranks: Sequence[int] = (0, 1)) -> list[float]:
    placed = [plan.layers[layer] for layer in SPEC.moe_layers]
    return [
        sum(
            counts_E[expert] * weight
            for layer, counts_E in zip(placed, counts_LE.tolist(), strict=True)
            for expert, weight in zip(layer.slots[rank], layer.weights[rank], strict=True)
        )
        for rank in ranks
    ]


def test_skewed_load_is_spread_by_sound_plans_within_the_room_for_moving() -> None:
    server, counts_LE = served(), counts(3000, 1000)
    assert max(rows_of_ranks(server.plan, counts_LE)) > 1.4 * counts_LE.sum() / 2
    answer = ask(server, counts_LE)
    assert answer.stages and answer.reason.startswith("the experts move")
    plan, loaded = server.plan, 0
    for stage in answer.stages:
        new = replace(plan, layers={**plan.layers, **stage})
        new.validate()
        come = [move.rank for move in diff(plan, new) if move.kind == "add"]
        for rank, memory in enumerate(server.memories):
            assert come.count(rank) * EXPERT_BYTES <= memory.moving
        plan, loaded = new, loaded + len(come)
    assert loaded * EXPERT_BYTES == answer.num_bytes > 0
    assert max(rows_of_ranks(plan, counts_LE)) < 1.03 * counts_LE.sum() / 2


@pytest.mark.parametrize(
    ("counts_LE", "changes"),
    [
        pytest.param(counts(1000, 1000), {}, id="even load"),
        pytest.param(counts(1030, 1000), {}, id="nearly even load"),
        pytest.param(counts(3000, 1000), {"bytes_per_second": 1e3}, id="slow loading"),
        pytest.param(counts(3000, 1000), {"num_steps": 1, "row_seconds": 1e-12}, id="no gain"),
    ],
)
def test_experts_stay_where_moving_does_not_pay(
    counts_LE: Ints, changes: dict[str, object]
) -> None:
    answer = ask(served(), counts_LE, **changes)
    assert not answer.stages and answer.num_bytes == 0


def test_a_plan_that_does_not_fit_while_experts_move_is_refused() -> None:
    server = served()
    tight = tuple(
        replace(memory, budget=memory.total - memory.moving) for memory in server.memories
    )
    answer = ask(replace(server, memories=tight), counts(3000, 1000))
    assert not answer.stages
    assert "fit" in answer.reason


def test_lost_ranks_and_lost_groups_get_nothing() -> None:
    """Of three ranks one is lost, and so is the only one that prefills."""
    pools = [("host", 3, "both"), ("early", 1, "prefill")]
    config = replace(
        served().config,
        cache=CacheConfig(num_pages=64),
        pools=tuple(
            PoolConfig(name=name, device="cpu", ranks=ranks, role=role, weights="float32")
            for name, ranks, role in pools
        ),
    )
    planned = plan_deployment(config, demo_config(), [1 << 30] * 4)
    lost = (1, 3)
    left = plan_without(planned.plan, lost)
    missing = find_missing(left, lost)
    left = with_missing(left, choose_ranks(left, missing, lost, {0: 0, 2: len(missing)}))
    server = ServedDeployment(
        config=config, plan=planned.plan, memories=planned.memories, reasons=()
    )
    counts_LE = counts(1000, 3000)
    answer = ask(server, counts_LE, plan=left, lost=lost)
    assert answer.stages and answer.reason.startswith("the experts move"), answer.reason
    plan = left
    for stage in answer.stages:
        plan = replace(plan, layers={**plan.layers, **stage})
        assert not any(placed.slots[rank] for placed in plan.layers.values() for rank in lost)
        assert not find_missing(plan, lost)
    rows = rows_of_ranks(plan, counts_LE, (0, 2))
    assert max(rows) < 1.05 * sum(rows) / 2


def test_without_rebalancing_no_memory_is_kept_for_it() -> None:
    config = served().config
    fixed = replace(config, placement=PlacementConfig())
    planned = plan_deployment(fixed, demo_config(), [1 << 30] * 2)
    assert [memory.moving for memory in planned.memories] == [0, 0]
    assert [memory.moving for memory in served().memories] == [EXPERT_BYTES] * 2
