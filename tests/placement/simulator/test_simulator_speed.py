"""The simulator is as fast as it promises, in CPU time: this machine may have other work."""

from collections.abc import Callable
from time import process_time
from typing import Any

import pytest
from moe_placement.bench.simulator import measure_scheduling
from moe_placement.simulator.arrivals import poisson_arrivals
from moe_placement.simulator.from_timers import together
from moe_placement.simulator.lengths import lognormal_lengths
from moe_placement.simulator.scheduler_choice import find_scheduler
from moe_placement.simulator.simulation import simulate
from moe_placement.simulator.stand_in import StandInScheduler
from moe_placement.simulator.workload import make_requests as requests_from

Make = Callable[..., Any]


@pytest.mark.parametrize("scheduler", ["stand-in", "engine"])
def test_a_rank_of_64_sequences_is_scheduled_200_000_times_a_minute(scheduler: str) -> None:
    def steps_per_minute() -> float:
        speed = measure_scheduling(find_scheduler(scheduler), num_steps=4000, num_sequences=64)
        assert (speed.num_steps, speed.num_requests > 500) == (4000, True)
        return speed.steps_per_minute

    # A neighbour that shares the caches slows CPU time too: the best of a few rounds counts.
    assert any(steps_per_minute() >= 200_000 for _ in range(4))


def test_a_step_costs_what_happens_in_it_and_not_its_size() -> None:
    few, many = (
        measure_scheduling(StandInScheduler, num_steps=1000, num_sequences=num) for num in (16, 256)
    )
    # Sixteen times the sequences, and as many times the requests that come and go.
    per_request = [speed.cpu_seconds / speed.num_requests for speed in (few, many)]
    assert per_request[1] < 3 * per_request[0]


def test_a_simulated_hour_takes_seconds(make_timer: Make, make_limits: Make) -> None:
    num_requests = 600
    requests = requests_from(
        poisson_arrivals(5.0, num_requests, seed=0),
        lognormal_lengths(1155, 1.0, num_requests, seed=1),
        lognormal_lengths(211, 1.0, num_requests, seed=2),
    )
    limits = make_limits(num_pages=10_000, page_size=64, max_tokens_per_step=8192)
    deployment = together(make_timer(0.008, per_token=25e-6), limits)
    began = process_time()
    result = simulate(deployment, requests, seed=0)
    taken = process_time() - began
    assert result.num_finished == num_requests
    # At this rate an hour of 18,000 requests would take a minute.
    assert taken / result.seconds < 60 / 3600
