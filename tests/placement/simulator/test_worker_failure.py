"""Workers and ranks that die: no request is lost, and each is as late as it must be."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from moe_placement.simulator.arrivals import poisson_arrivals
from moe_placement.simulator.deployment import SimulatedDeployment, SimulatedLink, SimulatedWorker
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.from_timers import apart, together
from moe_placement.simulator.incidents import Failure
from moe_placement.simulator.lengths import lognormal_lengths
from moe_placement.simulator.result import SimulationResult
from moe_placement.simulator.simulation import simulate
from moe_placement.simulator.workload import make_requests as requests_from

Make = Callable[..., Any]


def count_all(result: SimulationResult) -> int:
    return result.num_finished + result.num_refused + result.num_unfinished


def test_a_lone_request_is_computed_again_with_its_tokens(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    timer = make_timer(0.01, per_token=1e-4)
    # A prefill of 0.02 s and three tokens of 0.01 s; the fifth is under way.
    failure = Failure(worker=0, at=0.055, until=1.0)
    deployment = replace(together(timer, make_limits()), failures=(failure,))
    result = simulate(deployment, make_requests(1, 100, 8), seed=0)
    assert result.num_resubmitted == 1 and result.num_finished == 1
    again = 0.01 + 104 * 1e-4
    assert result.ttft.mean == pytest.approx(0.02)
    assert result.end_to_end.mean == pytest.approx(1.0 + again + 3 * 0.01)
    assert result.inter_token.largest == pytest.approx(1.0 + again - 0.05)
    assert result.inter_token.count == 7


def test_another_worker_takes_over(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    failure = Failure(worker=0, at=0.255)
    deployment = together(make_timer(0.01), make_limits(), num_workers=2)
    result = simulate(
        replace(deployment, failures=(failure,)), make_requests(20, prompt=10, output=60), seed=0
    )
    assert (result.num_finished, result.num_resubmitted) == (20, 10)
    # The step that was lost is all that is late: the prefill gives a token too.
    assert result.seconds == pytest.approx(61 * 0.01)


def test_a_worker_that_never_returns_leaves_its_requests_counted(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = together(make_timer(0.01), make_limits())
    failed = replace(deployment, failures=(Failure(worker=0, at=0.5),))
    result = simulate(failed, make_requests(30, output=10, gap=0.05), seed=0)
    assert 0 < result.num_finished < result.num_requests == 30
    assert result.num_unfinished == 30 - result.num_finished
    # The rates are over all the time in which requests came.
    assert result.seconds == pytest.approx(29 * 0.05)


def test_a_dead_rank_stops_the_others_for_a_pause_only(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    worker = SimulatedWorker(pool="both", timer=make_timer(0.01), limits=make_limits(), num_ranks=2)
    failure = Failure(worker=0, rank=1, at=0.205, until=0.4, pause=0.1, timer=make_timer(0.02))
    deployment = SimulatedDeployment(workers=(worker,), failures=(failure,), routing="round_robin")
    result = simulate(deployment, make_requests(2, output=30), seed=0)
    assert (result.num_finished, result.num_resubmitted) == (2, 1)
    by_id = dict(zip(result.times.request_id_R, result.times.end_to_end_R, strict=True))
    # The step is repeated at its old price; six or seven at the new one end behind 0.4 s.
    paused = 0.205 + 0.1 + 0.01
    slow = int(np.ceil((0.4 - paused) / 0.02)) * 0.02
    num_left = 30 - 21 - round(slow / 0.02)
    assert by_id[0] == pytest.approx(paused + slow + num_left * 0.01)
    assert result.inter_token.largest == pytest.approx(0.115 + 0.02)


def test_a_rank_that_dies_idle_pauses_the_others_too(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    worker = SimulatedWorker(pool="both", timer=make_timer(0.01), limits=make_limits(), num_ranks=2)
    failure = Failure(worker=0, rank=1, at=1.0, pause=0.5)
    deployment = SimulatedDeployment(workers=(worker,), failures=(failure,))
    requests = [replace(one, arrival=1.2) for one in make_requests(1, output=1)]
    result = simulate(deployment, requests, seed=0)
    assert result.ttft.mean == pytest.approx(0.3 + 0.01)
    assert result.utilisation["both"] == pytest.approx(0.01 / 0.31)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_fails_nothing_is_lost(make_timer: Make, make_limits: Make, seed: int) -> None:
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, 8, 12))
    failures = tuple(
        Failure(worker=int(random.integers(4)), at=at, until=at + random.exponential(2.0))
        for at in times.tolist()
    )
    limits = make_limits(num_pages=140)
    timer = make_timer(0.004, per_token=2e-5, per_sequence=1e-3)
    link = SimulatedLink(name="network", bandwidth=1e7)
    pairs = apart(
        timer, timer, limits, num_prefill=2, num_decode=2, link=link, kv_bytes_per_token=100.0
    )
    num_requests = 300
    requests = requests_from(
        poisson_arrivals(40.0, num_requests, seed),
        lognormal_lengths(300, 1.0, num_requests, seed + 1),
        lognormal_lengths(40, 1.0, num_requests, seed + 2),
    )
    result = simulate(replace(pairs, failures=failures), requests, seed=seed)
    assert result.num_resubmitted > 3 and result.num_preemptions > 0
    assert result.num_unfinished == 0 and count_all(result) == num_requests
    # Only what is longer than all pages was refused.
    too_long = [one for one in requests if one.prompt_tokens + one.output_tokens > 140 * 16 + 1]
    assert result.num_refused == len(too_long)
    assert len(set(result.times.request_id_R.tolist())) == result.num_finished


def test_who_was_taken_once_waits_for_room_and_is_not_refused(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = together(make_timer(0.01), make_limits(max_live=6), num_workers=2)
    failed = replace(deployment, failures=(Failure(worker=0, at=0.055),))
    # Twelve are taken and three refused; six then have to wait for the other six.
    result = simulate(failed, make_requests(15, prompt=10, output=20), seed=0)
    assert (result.num_finished, result.num_refused, result.num_unfinished) == (12, 3, 0)
    assert result.num_resubmitted == 6
    assert result.seconds == pytest.approx(20 * 0.01 + 15 * 0.01)


def test_a_simulation_can_be_cut_short(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = together(make_timer(0.01), make_limits())
    result = simulate(deployment, make_requests(100, output=10, gap=0.1), seed=0, until=3.05)
    assert result.seconds == 3.05
    assert (result.num_requests, result.num_finished, result.num_unfinished) == (31, 30, 1)
    # Thirty requests of ten steps, and half of the step in which the last one is cut.
    assert result.utilisation["both"] == pytest.approx((30 * 0.1 + 0.05) / 3.05)


def test_a_step_that_is_cut_was_work(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    result = simulate(together(make_timer(8.0), make_limits()), make_requests(1), seed=0, until=4.5)
    assert result.utilisation == {"both": pytest.approx(1.0)}
    assert result.num_steps == 0


def test_a_failure_long_after_the_last_request_is_not_waited_for(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    failure = Failure(worker=0, at=1e6, until=1e9)
    failed = replace(together(make_timer(0.01), make_limits()), failures=(failure,))
    result = simulate(failed, make_requests(3, output=10), seed=0)
    assert len(result.queues) == 2 and result.seconds == pytest.approx(0.1)


@pytest.mark.parametrize("changes", [{"at": -1.0}, {"until": 2.0}, {"pause": -0.1}])
def test_failures_that_end_before_they_begin_are_named(changes: dict[str, float]) -> None:
    with pytest.raises(SimulationError, match="give times that grow from 0, and a pause"):
        Failure(**({"worker": 0, "at": 2.0, "until": 3.0} | changes))


def test_what_never_fits_is_refused_and_counted(
    make_timer: Make, make_limits: Make, make_requests: Make
) -> None:
    deployment = together(make_timer(0.01), make_limits(num_pages=10))
    requests = [*make_requests(5), replace(make_requests(1, prompt=5000)[0], request_id=9)]
    ticks: list[tuple[int, int]] = []
    result = simulate(
        deployment, requests, seed=0, progress=lambda over, total: ticks.append((over, total))
    )
    assert (result.num_finished, result.num_refused, result.num_unfinished) == (5, 1, 0)
    assert ticks[-1] == (6, 6)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(worker=1, at=0.0), "worker 1 is to fail or switch; there are workers 0..0"),
        (Failure(worker=0, rank=3, at=0.0), "rank 3 of worker 0 is to fail; it has ranks 0..0"),
    ],
)
def test_failures_of_nobody_are_named(
    make_timer: Make, make_limits: Make, failure: Failure, message: str
) -> None:
    with pytest.raises(SimulationError, match=message):
        replace(together(make_timer(), make_limits()), failures=(failure,))
