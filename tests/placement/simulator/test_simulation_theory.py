"""Simulations beside what queueing theory, or a sum by hand, says they must give."""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from moe_placement.cost.step_shape import StepShape
from moe_placement.simulator.arrivals import ClosedLoop, poisson_arrivals
from moe_placement.simulator.from_timers import together
from moe_placement.simulator.scheduler import SchedulerLimits, SimulatedRequest
from moe_placement.simulator.simulation import simulate
from numpy.typing import NDArray

MakeLimits = Callable[..., SchedulerLimits]
MakeTimer = Callable[..., Any]
MakeRequests = Callable[..., list[SimulatedRequest]]


def test_a_lone_request_takes_the_sum_of_its_steps(
    make_timer: MakeTimer, make_limits: MakeLimits, make_requests: MakeRequests
) -> None:
    timer = make_timer(0.01, per_token=1e-4, per_sequence=0.003)
    result = simulate(together(timer, make_limits()), make_requests(1, 1200, 5), seed=0)
    assert timer.shapes == [
        StepShape(prefill_tokens=512, prefill_context=256.5),
        StepShape(prefill_tokens=512, prefill_context=768.5),
        StepShape(prefill_tokens=176, prefill_context=1112.5),
        *(StepShape(decode_sequences=1, decode_context=1200 + n) for n in range(1, 5)),
    ]
    seconds = list(accumulate(timer.seconds(shape) for shape in list(timer.shapes)))
    assert result.ttft.p50 == pytest.approx(seconds[2], rel=1e-12)
    assert result.end_to_end.p50 == pytest.approx(seconds[6], rel=1e-12)
    assert result.tpot.p50 == pytest.approx(0.013, rel=1e-12)
    assert result.inter_token.count == 4
    assert result.inter_token.largest == pytest.approx(0.013, rel=1e-12)
    assert result.utilisation == {"both": pytest.approx(1.0)}


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_at_a_time_waits_as_in_an_m_d_1_queue(
    load: float, make_timer: MakeTimer, make_limits: MakeLimits
) -> None:
    service, num_requests = 0.02, 12_000
    arrivals = poisson_arrivals(load / service, num_requests, seed=3)
    requests = [
        SimulatedRequest(request_id=number, arrival=at, prompt_tokens=8, output_tokens=1)
        for number, at in enumerate(arrivals.tolist())
    ]
    deployment = together(make_timer(service), make_limits(max_sequences=1))
    result = simulate(deployment, requests, seed=0)
    waits = result.times.ttft_R - service
    assert waits == pytest.approx(lindley_waits(arrivals, service), abs=1e-9)
    # Pollaczek and Khinchine's mean, within four standard errors of the batches' means.
    batches = waits.reshape(24, -1).mean(axis=1)
    error = batches.std(ddof=1) / np.sqrt(24)
    assert abs(waits.mean() - load * service / (2 * (1 - load))) < 4 * error
    assert np.mean(waits < 1e-9) == pytest.approx(1 - load, abs=0.02)
    assert result.utilisation["both"] == pytest.approx(load, rel=0.02)


def lindley_waits(arrivals: NDArray[np.float64], service: float) -> NDArray[np.float64]:
    """Each wait from the one before: what was left of it and its service when the next came."""
    waits = np.zeros(len(arrivals))
    for index, gap in enumerate(np.diff(arrivals).tolist()):
        waits[index + 1] = max(0.0, waits[index] + service - gap)
    return waits


def test_a_closed_loop_obeys_littles_law(
    make_timer: MakeTimer, make_limits: MakeLimits, make_requests: MakeRequests
) -> None:
    think = 0.5
    deployment = together(make_timer(0.01, 1e-4, 1e-3), make_limits(max_sequences=8))
    loop = ClosedLoop(make_requests(1200, prompt=60, output=20), 12, think_seconds=think)
    result = simulate(deployment, loop, seed=0)
    assert result.num_finished == 1200
    cycle = result.end_to_end.mean + think
    assert result.request_rate * cycle == pytest.approx(12, rel=0.02)


def test_a_closed_loop_without_thinking_keeps_its_clients_busy(
    make_timer: MakeTimer, make_limits: MakeLimits, make_requests: MakeRequests
) -> None:
    timer = make_timer(0.01, per_sequence=0.001)
    loop = ClosedLoop(make_requests(64, prompt=4, output=11), concurrency=4)
    result = simulate(together(timer, make_limits()), loop, seed=0)
    # Sixteen rounds of a prefill of all four and ten steps in which all four decode.
    assert result.seconds == pytest.approx(16 * (0.01 + 10 * 0.014))
    assert result.tpot.p99 == pytest.approx(0.014)


def test_twice_the_workers_serve_twice_the_rate_alike(
    make_timer: MakeTimer, make_limits: MakeLimits, make_requests: MakeRequests
) -> None:
    one = simulate(together(make_timer(), make_limits()), make_requests(200, gap=0.2), seed=0)
    two = simulate(
        together(make_timer(), make_limits(), num_workers=2),
        make_requests(400, gap=0.1),
        seed=0,
    )
    assert two.ttft.mean == pytest.approx(one.ttft.mean)
    assert two.tpot.p99 == pytest.approx(one.tpot.p99)
    assert two.throughput == pytest.approx(2 * one.throughput, rel=0.01)


def test_the_same_seed_gives_the_same_noise(
    make_timer: MakeTimer, make_limits: MakeLimits, make_requests: MakeRequests
) -> None:
    deployment = together(make_timer(0.01), make_limits())
    worker = replace(deployment.workers[0], noise=0.3)
    noisy = replace(deployment, workers=(worker,))
    requests = make_requests(100, output=40, gap=0.3)
    first, again, other = (simulate(noisy, requests, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.times.end_to_end_R, again.times.end_to_end_R)
    assert not np.array_equal(first.times.end_to_end_R, other.times.end_to_end_R)
    assert first.tpot.mean == pytest.approx(0.01, rel=0.03)
    assert first.inter_token.p99 > 0.015
