"""Arrivals and lengths have the mean and spread that they are asked for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from moe_placement.serving.workload import Objective, Workload
from moe_placement.simulator.arrivals import (
    ClosedLoop,
    gamma_arrivals,
    on_off_arrivals,
    poisson_arrivals,
)
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.from_timers import together
from moe_placement.simulator.lengths import fixed_lengths, lognormal_lengths
from moe_placement.simulator.scheduler import SchedulerLimits, SimulatedRequest
from moe_placement.simulator.simulation import simulate
from moe_placement.simulator.workload import make_requests, requests_of, speed_up
from numpy.typing import NDArray


def dispersion(arrivals: NDArray[np.float64], seconds: float) -> float:
    """Variance over mean of the requests in spans of time; 1 for Poisson."""
    counts = np.bincount((arrivals / seconds).astype(int))[:-1]
    return float(counts.var() / counts.mean())


def test_poisson_arrivals_come_at_their_rate_and_without_memory() -> None:
    arrivals = poisson_arrivals(20.0, 40_000, seed=1)
    gaps = np.diff(arrivals)
    assert 40_000 / arrivals[-1] == pytest.approx(20.0, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, rel=0.02)
    assert dispersion(arrivals, 1.0) == pytest.approx(1.0, abs=0.1)
    assert np.array_equal(arrivals, poisson_arrivals(20.0, 40_000, seed=1))
    assert not np.array_equal(arrivals, poisson_arrivals(20.0, 40_000, seed=2))


@pytest.mark.parametrize("cv", [0.0, 0.5, 3.0])
def test_gamma_gaps_have_their_variation(cv: float) -> None:
    gaps = np.diff(gamma_arrivals(5.0, cv, 40_000, seed=2))
    assert gaps.mean() == pytest.approx(0.2, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_bursts_keep_the_rate_and_leave_silence() -> None:
    arrivals = on_off_arrivals(10.0, 2.0, 6.0, 60_000, seed=3)
    assert (np.diff(arrivals) >= 0).all() and len(arrivals) == 60_000
    assert 60_000 / arrivals[-1] == pytest.approx(10.0, rel=0.08)
    assert dispersion(arrivals, 4.0) > 20
    busy = np.median(np.diff(arrivals))
    assert busy == pytest.approx(np.log(2) / 40.0, rel=0.03)


def test_lengths_have_their_mean_and_variation() -> None:
    lengths = lognormal_lengths(1000.0, 0.8, 40_000, seed=4)
    assert lengths.mean() == pytest.approx(1000.0, rel=0.02)
    assert lengths.std() / lengths.mean() == pytest.approx(0.8, rel=0.05)
    assert lognormal_lengths(2.0, 2.0, 1000, seed=5).min() == 1
    assert set(lognormal_lengths(70.0, 0.0, 5, seed=6)) == {70} == set(fixed_lengths(70, 5))


def test_a_workload_becomes_requests() -> None:
    workload = Workload(
        prompt_tokens=800, output_tokens=100, rate=4.0, prompt_cv=0.5, cached_share=0.5
    )
    requests = requests_of(workload, 4000, seed=7)
    assert not isinstance(requests, ClosedLoop)
    assert np.mean([one.prompt_tokens for one in requests]) == pytest.approx(800, rel=0.03)
    assert {one.output_tokens for one in requests} == {100}
    assert requests[-1].arrival == pytest.approx(1000.0, rel=0.06)
    # A prompt shorter than what they share is not one of them.
    assert all(bool(one.blocks) == (one.prompt_tokens > 400) for one in requests)
    assert {one.block_tokens for one in requests} == {400}
    faster = speed_up(requests, 2.0)
    assert faster[-1].arrival == requests[-1].arrival / 2


def test_a_loop_of_clients_is_one() -> None:
    loop = requests_of(Workload(prompt_tokens=8, output_tokens=4, concurrency=3), 10, seed=8)
    assert isinstance(loop, ClosedLoop)
    assert (loop.concurrency, len(loop.requests)) == (3, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: poisson_arrivals(0.0, 5, 0), "rate is 0; it must be above 0"),
        (lambda: gamma_arrivals(1.0, -1.0, 5, 0), "cv is -1; a coefficient of variation"),
        (lambda: on_off_arrivals(1.0, 0.0, 1.0, 5, 0), "on_seconds is 0; it must be above 0"),
        (lambda: lognormal_lengths(0.5, 0.0, 5, 0), "mean is 0.5 tokens and cv 0; give"),
        (lambda: ClosedLoop((), 0), "concurrency is 0 and think_seconds 0"),
        (lambda: poisson_arrivals(1.0, -1, 0), "num_requests is -1; it must be above 0"),
        (lambda: gamma_arrivals(1.0, float("nan"), 5, 0), "cv is nan; a coefficient"),
        (lambda: on_off_arrivals(1.0, 1.0, -1.0, 5, 0), "off_seconds is -1; it must be 0 or"),
        (lambda: lognormal_lengths(float("nan"), 0.0, 5, 0), "mean is nan tokens and cv 0"),
        (lambda: lognormal_lengths(5.0, 0.0, 0, 0), "num_requests is 0; it must be above 0"),
        (lambda: fixed_lengths(0, 5), "mean is 0 tokens"),
        (lambda: speed_up((), 0.0), "factor is 0; a rate is multiplied"),
        (
            lambda: requests_of(Workload(prompt_tokens=8, output_tokens=4), 5, 0),
            "rate 0 and concurrency 0; give one of them",
        ),
    ],
)
def test_figures_that_make_no_workload_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        make()


def test_arrays_become_requests_in_order() -> None:
    requests = make_requests(np.array([0.5, 2.0]), np.array([7, 8]), np.array([1, 2]))
    assert [(one.request_id, one.arrival, one.prompt_tokens) for one in requests] == [
        (0, 0.5, 7),
        (1, 2.0, 8),
    ]


def test_requests_that_a_simulation_cannot_tell_apart_or_place_are_named(
    make_timer: Callable[..., Any], make_limits: Callable[..., SchedulerLimits]
) -> None:
    deployment = together(make_timer(), make_limits())
    one = SimulatedRequest(request_id=3, prompt_tokens=8, output_tokens=1)
    twice = "request 3 is there twice; give each a number of its own"
    for requests in ([one, one], ClosedLoop([one, one], 1)):
        with pytest.raises(SimulationError, match=twice):
            simulate(deployment, requests, seed=0)
    for arrival in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SimulationError, match="request 3 arrives at"):
            simulate(deployment, [replace(one, arrival=arrival)], seed=0)


def test_no_requests_give_nothing(
    make_timer: Callable[..., Any], make_limits: Callable[..., SchedulerLimits]
) -> None:
    result = simulate(together(make_timer(), make_limits()), [], seed=0)
    assert (result.num_requests, result.seconds, result.ttft.count) == (0, 0.0, 0)
    assert result.goodput(Objective()) == result.prefix_hit_rate == 0.0
