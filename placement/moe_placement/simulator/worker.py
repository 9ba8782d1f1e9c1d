"""A simulated worker: ranks in lock-step, one step after the other while there is work."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import exp, log1p, sqrt
from typing import Protocol

import numpy as np

from moe_placement.cost.step_shape import StepShape
from moe_placement.cost.step_timer import StepTimer
from moe_placement.simulator.deployment import SimulatedWorker
from moe_placement.simulator.events import EventQueue
from moe_placement.simulator.incidents import PlanSwitch
from moe_placement.simulator.links import Links
from moe_placement.simulator.rank import Rank
from moe_placement.simulator.running_plan import RunningPlan
from moe_placement.simulator.scheduler import MakeScheduler, Outcome, SimulatedRequest, Step
from moe_placement.simulator.shapes import heaviest, scaled, shape_of


class Listener(Protocol):
    """Who hears what a worker's steps do to requests."""

    def began(self, step: Step, rank: Rank) -> None: ...

    def ended(self, outcome: Outcome, rank: Rank) -> None: ...


class Worker:
    """Attributes:
    ranks: its attention groups.
    busy_seconds: in steps.
    num_steps: that ended.
    """

    def __init__(
        self,
        spec: SimulatedWorker,
        make_scheduler: MakeScheduler,
        events: EventQueue,
        links: Links,
        listener: Listener,
        random: np.random.Generator,
    ) -> None:
        self.spec = spec
        self.ranks = [Rank(make_scheduler, spec.limits) for _ in range(spec.num_ranks)]
        self.busy_seconds = 0.0
        self.num_steps = 0
        self._rank_shares = spec.rank_shares
        self._events, self._links, self._listener = events, links, listener
        self._random = random
        self._plan = RunningPlan(spec.timer, links)
        self._reduced: dict[int, StepTimer] = {}
        self._is_stepping = False
        self._step_number = 0
        self._step_seconds = 0.0
        self._resumes_at = 0.0
        self._changed_at = 0.0  # when the step, or the idle time, began

    def submit(self, rank: int, request: SimulatedRequest, num_computed: int) -> None:
        """Hand a request to a rank; RefusedError as its scheduler's."""
        self.ranks[rank].add(request, num_computed)
        if not self._is_stepping:
            self._is_stepping = True
            self._move_idle()
            self._plan_step()

    def stop(self) -> None:
        """Count as busy the part of its step that a worker has behind it."""
        if self._step_seconds:
            self._rest()

    def switch(self, switch: PlanSwitch) -> None:
        """Begin to move to another plan."""
        if not self._is_stepping:
            self._move_idle()
        self._plan.switch(switch)

    def die(self) -> dict[int, int]:
        """Lose everything; the tokens that each request had generated here, by id."""
        if self._is_stepping:
            self._step_number += 1
            self._rest()
        return {one: num for rank in self.ranks for one, num in rank.die().items()}

    def lose_rank(self, rank: int, pause: float, reduced: StepTimer | None) -> dict[int, int]:
        """Lose what one rank holds; the others take their step, or their next, after a pause."""
        if reduced is not None:
            self._reduced[rank] = reduced
        num_generated = self.ranks[rank].die()
        if self._step_seconds:
            self._plan_end(pause + self._step_seconds)
        else:
            self._resumes_at = self._events.now + pause
        return num_generated

    def regain_rank(self, rank: int) -> None:
        """Step again as fast as before."""
        self._reduced.pop(rank, None)

    def _move_idle(self) -> None:
        self._plan.idle(self._events.now - self._changed_at)
        self._changed_at = self._events.now

    def _plan_step(self) -> None:
        # Behind all that happens at the same time, so that what arrives together starts together.
        time = max(self._events.now, self._resumes_at)
        self._events.at(time, partial(self._begin_step, self._step_number), last=True)

    def _plan_end(self, seconds: float) -> None:
        self._step_number += 1
        end = self._events.now + seconds
        self._events.at(end, partial(self._end_step, self._step_number))

    def _begin_step(self, number: int) -> None:
        if number != self._step_number:
            return
        self._changed_at = self._events.now
        steps = [rank.schedule() for rank in self.ranks]
        for rank, step in zip(self.ranks, steps, strict=True):
            if step.chunks or step.preempted:
                self._listener.began(step, rank)
        shape = shape_of(steps, self.spec.limits.decode_tokens)
        if not shape.num_tokens:
            self._rest()
            return
        for traffic in self.spec.traffic:
            self._links.count(traffic.link, traffic.bytes_per_token * shape.num_tokens)
        self._step_seconds = self._plan.stretch(self._seconds(shape, steps))
        self._plan_end(self._step_seconds)

    def _end_step(self, number: int) -> None:
        if number != self._step_number:
            return
        self.num_steps += 1
        self.busy_seconds += self._events.now - self._changed_at
        self._changed_at, self._step_seconds = self._events.now, 0.0
        for rank in self.ranks:
            outcome = rank.update()
            if outcome is not None:
                self._listener.ended(outcome, rank)
                rank.last_end = self._events.now
        self._plan_step()

    def _rest(self) -> None:
        self.busy_seconds += self._events.now - self._changed_at
        self._is_stepping = False
        self._step_seconds = 0.0
        self._changed_at = self._events.now

    def _as_if_all(self, steps: Sequence[Step]) -> Iterator[StepShape]:
        """The worker's step if all ranks had as much to do as one of them, for each."""
        for step, share in zip(steps, self._rank_shares, strict=True):
            if not step.is_empty:
                yield scaled(shape_of([step], self.spec.limits.decode_tokens), 1 / share)

    def _seconds(self, shape: StepShape, steps: Sequence[Step]) -> float:
        timer = next(reversed(self._reduced.values()), self._plan.timer)
        seconds = timer.seconds(shape)
        alone = self.spec.rank_timer
        if alone is not None and len(steps) > 1:
            slowest = max(map(alone.seconds, heaviest(self._as_if_all(steps))))
            seconds += max(0.0, slowest - alone.seconds(shape))
        if self.spec.noise:
            variance = log1p(self.spec.noise**2)
            seconds *= exp(sqrt(variance) * self._random.standard_normal() - variance / 2)
        return seconds
