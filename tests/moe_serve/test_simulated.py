"""The simulator with the engine's scheduler beside the simulator with its own stand-in."""

from dataclasses import replace

import numpy as np
import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.simulator.deployment import SimulatedDeployment
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.from_timers import together
from moe_placement.simulator.result import SimulationResult
from moe_placement.simulator.scheduler import (
    Outcome,
    RefusedError,
    SchedulerLimits,
    SimulatedRequest,
)
from moe_placement.simulator.scheduler_choice import find_scheduler
from moe_placement.simulator.simulation import simulate

from moe_serve.simulated import SimulatedScheduler

LIMITS = SchedulerLimits(num_pages=100, page_size=16)
TOTALS = (
    "num_finished",
    "num_refused",
    "num_steps",
    "num_preemptions",
    "num_prompt_tokens",
    "num_cached_tokens",
    "inter_token",
)


class Timer:
    def seconds(self, shape: StepShape) -> float:
        attention = shape.decode_sequences * shape.decode_context
        return 0.008 + 25e-6 * shape.num_tokens + 4e-9 * attention


def shared_prefixes(seed: int) -> list[SimulatedRequest]:
    """Forty requests within a second, in five families that begin alike."""
    random = np.random.default_rng(seed)
    requests = []
    for number in range(40):
        family, num_blocks = int(random.integers(5)), int(random.integers(6))
        requests.append(
            SimulatedRequest(
                request_id=number,
                arrival=float(random.uniform()),
                prompt_tokens=num_blocks * 32 + int(random.integers(1, 40)),
                output_tokens=int(random.integers(1, 160)),
                blocks=tuple(family * 100 + block for block in range(num_blocks)),
                block_tokens=32,
            )
        )
    return requests


def narrow(seed: int) -> SimulatedDeployment:
    """So few pages, tokens and places that sequences wait and are preempted."""
    random = np.random.default_rng(seed)
    limits = SchedulerLimits(
        num_pages=int(random.integers(100, 300)),
        page_size=4,
        max_tokens_per_step=int(random.integers(20, 300)),
        max_sequences=int(random.integers(2, 20)),
    )
    return together(Timer(), limits)


def test_the_engine_registers_its_scheduler() -> None:
    assert find_scheduler("engine") is SimulatedScheduler
    with pytest.raises(SimulationError, match=r"'other' is not installed; use one of .*engine"):
        find_scheduler("other")


def test_stand_in_and_engine_do_the_same() -> None:
    results: list[SimulationResult] = []
    for seed in range(12):
        requests, deployment = shared_prefixes(seed), narrow(seed)
        stand_in = simulate(deployment, requests, seed=0)
        engine = simulate(replace(deployment, scheduler="engine"), requests, seed=0)
        for name in TOTALS:
            assert getattr(stand_in, name) == getattr(engine, name), (seed, name)
        assert np.array_equal(stand_in.times.request_id_R, engine.times.request_id_R)
        assert stand_in.times.ttft_R == pytest.approx(engine.times.ttft_R)
        assert stand_in.times.end_to_end_R == pytest.approx(engine.times.end_to_end_R)
        results.append(engine)
    # Of what they could differ in, everything came up.
    assert sum(result.num_preemptions for result in results) > 100
    assert 0.1 < np.mean([result.prefix_hit_rate for result in results]) < 0.9


def request(number: int, prompt: int = 40, output: int = 3) -> SimulatedRequest:
    return SimulatedRequest(request_id=number, prompt_tokens=prompt, output_tokens=output)


def test_an_aborted_request_tells_its_tokens_and_is_gone() -> None:
    scheduler = SimulatedScheduler(LIMITS)
    scheduler.add(request(4, output=9))
    for _ in range(3):
        scheduler.schedule()
        scheduler.update()
    scheduler.schedule()
    assert scheduler.abort(4) == 3
    assert scheduler.update() == Outcome()
    assert (scheduler.num_running, scheduler.num_waiting) == (0, 0)
    assert scheduler.schedule().is_empty


def test_what_the_engine_refuses_is_refused() -> None:
    scheduler = SimulatedScheduler(replace(LIMITS, max_live=1))
    scheduler.add(request(0))
    with pytest.raises(RefusedError, match="request 1: 1 requests run or wait"):
        scheduler.add(request(1))
    with pytest.raises(RefusedError, match="request 2: 5000 prompt tokens"):
        scheduler.add(request(2, prompt=5000))


def test_what_the_engine_cannot_do_is_said() -> None:
    with pytest.raises(
        SimulationError, match="decode_tokens is 2; the engine's scheduler computes 1"
    ):
        SimulatedScheduler(replace(LIMITS, decode_tokens=2))
    with pytest.raises(SimulationError, match="comes with the cache of 40 tokens"):
        SimulatedScheduler(LIMITS).add(request(0), num_computed=40)
