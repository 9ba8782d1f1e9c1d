"""Discrete events of a deployment under a workload: from arrivals to percentiles."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np

from moe_placement.simulator.arrivals import ClosedLoop
from moe_placement.simulator.deployment import SimulatedDeployment
from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.events import EventQueue
from moe_placement.simulator.flow import RequestFlow
from moe_placement.simulator.links import Links
from moe_placement.simulator.recorder import Recorder
from moe_placement.simulator.result import SimulationResult
from moe_placement.simulator.scheduler import SimulatedRequest
from moe_placement.simulator.scheduler_choice import find_scheduler
from moe_placement.simulator.summary import summarize
from moe_placement.simulator.worker import Worker

Progress = Callable[[int, int], None]


def simulate(
    deployment: SimulatedDeployment,
    requests: Sequence[SimulatedRequest] | ClosedLoop,
    *,
    seed: int,
    until: float | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Run a workload through a deployment; the same arguments give the same result.

    Args:
        requests: an open stream, each at its arrival, or a closed loop.
        seed: of the noise in step times.
        until: seconds to stop at; None goes on until nothing more can happen.
        progress: told now and then how many requests are over, of how many.

    Raises:
        SimulationError: the deployment names a scheduler that is not installed, or a request's
            number is not its own, or its arrival is no time.
    """
    simulation = _Simulation(deployment, seed, progress)
    if isinstance(requests, ClosedLoop):
        simulation.take_closed_loop(requests)
    else:
        simulation.take_open_stream(requests)
    return simulation.run(inf if until is None else until)


class _Simulation:
    def __init__(
        self, deployment: SimulatedDeployment, seed: int, progress: Progress | None
    ) -> None:
        self._deployment, self._progress = deployment, progress
        self._events, self._recorder = EventQueue(), Recorder()
        self._links = Links(deployment.links)
        self._flow = RequestFlow(
            deployment, self._events, self._links, self._recorder, self._count_over
        )
        self._make_workers(seed)
        self._plan_incidents()
        self._start = 0.0
        self._num_over = self._num_expected = 0
        self._send_next: Callable[[], None] | None = None

    def take_open_stream(self, requests: Sequence[SimulatedRequest]) -> None:
        """Let each request come at its arrival."""
        _check_numbers(requests)
        for request in requests:
            if not 0 <= request.arrival < inf:
                raise SimulationError(
                    f"request {request.request_id} arrives at {request.arrival:g} s; give a time "
                    "of 0 or more"
                )
            self._events.at(request.arrival, partial(self._flow.arrive, request))
        self._num_expected = len(requests)
        self._start = min((request.arrival for request in requests), default=0.0)

    def take_closed_loop(self, loop: ClosedLoop) -> None:
        """Let the first requests come at once, and each other one when one is over."""
        _check_numbers(loop.requests)
        waiting = iter(loop.requests)

        def send_next(delay: float = loop.think_seconds) -> None:
            request = next(waiting, None)
            if request is not None:
                request = replace(request, arrival=self._events.now + delay)
                self._events.at(request.arrival, partial(self._flow.arrive, request))

        self._num_expected = len(loop.requests)
        for _ in range(loop.concurrency):
            send_next(0.0)
        self._send_next = send_next

    def run(self, until: float) -> SimulationResult:
        self._events.at(self._start, self._sample, last=True)
        self._events.run(until)
        for worker in self._flow.workers:
            worker.stop()
        is_cut = self._num_over < self._num_expected and until < inf
        end = until if is_cut else self._flow.last_at
        seconds = max(0.0, end - self._start)
        return summarize(self._recorder, self._flow.workers, self._links, seconds)

    def _make_workers(self, seed: int) -> None:
        make_scheduler = find_scheduler(self._deployment.scheduler)
        seeds = np.random.SeedSequence(seed).spawn(len(self._deployment.workers))
        for spec, own_seed in zip(self._deployment.workers, seeds, strict=True):
            random = np.random.default_rng(own_seed)
            worker = Worker(spec, make_scheduler, self._events, self._links, self._flow, random)
            self._flow.workers.append(worker)

    def _plan_incidents(self) -> None:
        for failure in self._deployment.failures:
            self._events.at(failure.at, partial(self._flow.fail, failure))
            if failure.until < inf:
                self._events.at(failure.until, partial(self._flow.recover, failure))
        for switch in self._deployment.switches:
            worker = self._flow.workers[switch.worker]
            self._events.at(switch.at, partial(worker.switch, switch))

    def _count_over(self) -> None:
        self._num_over += 1
        if self._progress is not None:
            stride = max(1, self._num_expected // 100)
            if self._num_over % stride == 0 or self._num_over == self._num_expected:
                self._progress(self._num_over, self._num_expected)
        if self._send_next is not None:
            self._send_next()

    def _sample(self) -> None:
        self._recorder.sample(self._events.now, self._flow.workers)
        # Nothing else to come: the simulation would never end for looking at it.
        if self._events.has_more and self._num_over < self._num_expected:
            time = self._events.now + self._deployment.sample_seconds
            self._events.at(time, self._sample, last=True)


def _check_numbers(requests: Sequence[SimulatedRequest]) -> None:
    taken: set[int] = set()
    for request in requests:
        if request.request_id in taken:
            raise SimulationError(
                f"request {request.request_id} is there twice; give each a number of its own"
            )
        taken.add(request.request_id)
