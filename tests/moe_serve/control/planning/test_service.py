"""What a planned deployment is predicted to give: against the planner's own words for it."""

from dataclasses import replace
from pathlib import Path

import pytest
from moe_placement.serving.workload import Objective, Workload

from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment, plan_deployment
from moe_serve.control.planning.planned_workers import planned_workers
from moe_serve.control.planning.service import ServicePrediction, predict_service
from moe_serve.demo_config import demo_config

MIXED = Path(__file__).parents[4] / "configs" / "mixed_six.yaml"
APART = ("pools.0.role=prefill", "pools.1.role=decode")
STREAM = Workload(prompt_tokens=1000, output_tokens=100, rate=1.0)


def deployed(*overrides: str) -> tuple[Config, Deployment]:
    config = resolve(load_config(MIXED, list(overrides)), demo_config(), 1)
    return config, plan_deployment(config, demo_config(), [1 << 30] * config.num_ranks)


def predicted(
    *overrides: str, workload: Workload = STREAM, objective: Objective | None = None
) -> ServicePrediction:
    return predict_service(*deployed(*overrides), workload, objective)


def test_workers_are_timed_by_the_plan_itself() -> None:
    config, deployment = deployed()
    (worker,) = planned_workers(config, deployment, STREAM)
    assert worker.phase == "both" and worker.candidate.is_exact
    assert [part.num_devices for part in worker.candidate.kind.parts] == [2, 2, 2]
    assert worker.candidate.limits.num_groups == 4
    experts = {
        rank: len(next(iter(deployment.plan.layers.values())).slots[rank]) for rank in range(6)
    }
    slots = worker.candidate.room.slots
    assert slots == tuple(max(experts[rank], experts[rank + 1]) for rank in (0, 2, 4))
    # All experts on the slowest pool instead: steps take longer.
    layers = {
        layer: replace(
            placed,
            slots=((), (), (), (), tuple(range(8)), tuple(range(8, 16))),
            weights=((), (), (), (), (1.0,) * 8, (1.0,) * 8),
        )
        for layer, placed in deployment.plan.layers.items()
    }
    slow = deployment.with_plan(replace(deployment.plan, layers=layers))
    before, after = (
        predict_service(config, deployment, STREAM),
        predict_service(config, slow, STREAM),
    )
    assert after.tpot > 1.3 * before.tpot


def test_prompts_interrupt_decoding_only_where_both_are_done() -> None:
    busy = replace(STREAM, rate=2.5)
    together, apart = predicted(workload=busy), predicted(*APART, workload=busy)
    assert together.gap_p99 > 5 * together.tpot
    assert apart.gap_p99 == apart.tpot < together.tpot
    assert together.meets_objective and apart.meets_objective
    assert together.kv_link is None and apart.kv_link is not None


def test_keys_and_values_take_their_link() -> None:
    fast = predicted(*APART).kv_link
    assert fast is not None and fast.name == "gpu>npu" and fast.channels == 2
    assert fast.seconds == pytest.approx(fast.num_bytes / 10e9 + 10e-6)
    # 1000 tokens, 4 layers, 80 elements; and a scale for the latent and for the rotary key.
    narrow = predicted(*APART, "links.0.wire=int8").kv_link
    assert narrow is not None and narrow.num_bytes == 1000 * 4 * (80 + 2 * 4)
    slow = predicted(*APART, "links.0.bandwidth=1MB/s")
    assert slow.kv_link is not None
    assert slow.kv_link.left > 0.5 * slow.kv_link.seconds > 100 * fast.seconds
    assert slow.ttft > predicted(*APART).ttft + slow.kv_link.left
    assert slow.most_rate == pytest.approx(slow.kv_link.most_rate, rel=0.01)
    too_many = predicted(
        *APART, "links.0.bandwidth=1MB/s", workload=replace(STREAM, rate=1.2 * slow.most_rate)
    )
    assert too_many.ttft == float("inf") and not too_many.meets_objective
    assert too_many.request_rate == pytest.approx(slow.most_rate, rel=0.01)


def test_clients_in_a_closed_loop_wait_for_the_link() -> None:
    loop = Workload(prompt_tokens=1000, output_tokens=100, concurrency=8)
    fast, slow = (
        predicted(*APART, f"links.0.bandwidth={each}", workload=loop)
        for each in ("10GB/s", "500kB/s")
    )
    assert slow.kv_link is not None
    assert slow.request_rate == pytest.approx(slow.kv_link.most_rate)
    assert slow.request_rate < 0.5 * fast.request_rate
    # Little's law: what the loop holds is its rate times the time that a request is in it.
    assert slow.request_rate * (slow.ttft + 99 * slow.tpot) == pytest.approx(8, rel=0.1)


def test_declared_times_last_as_long_as_emulation_makes_them() -> None:
    real = predicted(objective=Objective(ttft=1.0))
    slowed = predicted(
        "emulation.time_scale=4",
        workload=replace(STREAM, rate=0.25),
        objective=Objective(ttft=4.0),
    )
    assert slowed.ttft == pytest.approx(4 * real.ttft)
    assert slowed.gap_p99 == pytest.approx(4 * real.gap_p99)
    assert slowed.most_rate == pytest.approx(real.most_rate / 4)


def test_the_most_that_is_served_keeps_to_the_objective() -> None:
    asked = Objective(ttft=0.6, tpot=0.01)
    most = predicted(objective=asked).most_rate
    below, above = (
        predicted(workload=replace(STREAM, rate=share * most), objective=asked)
        for share in (0.99, 1.02)
    )
    assert below.meets_objective and not above.meets_objective
    assert predicted(objective=Objective(ttft=1e-6)).most_rate == 0.0
