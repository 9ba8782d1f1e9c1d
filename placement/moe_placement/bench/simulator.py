"""How fast the simulator is: one rank's schedule-and-update, and whole simulations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter, process_time

from moe_placement.cost.step_shape import StepShape
from moe_placement.simulator.from_timers import together
from moe_placement.simulator.scheduler import (
    MakeScheduler,
    Scheduler,
    SchedulerLimits,
    SimulatedRequest,
)
from moe_placement.simulator.simulation import simulate

_PROMPTS = 50
_FAMILIES = 30
_BLOCK_TOKENS = 512
_WARM_STEPS = 300
# So many that the cache of one large worker has room for a few hundred prompts.
_TRACE_PAGES = 40_000


@dataclass(frozen=True, slots=True)
class PlainTimer:
    """A StepTimer that costs nothing itself: what is measured is the simulator."""

    fixed: float = 0.008
    per_token: float = 25e-6
    per_cached_token: float = 4e-9

    def seconds(self, shape: StepShape) -> float:
        cached = shape.decode_sequences * shape.decode_context
        return self.fixed + shape.num_tokens * self.per_token + cached * self.per_cached_token


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingSpeed:
    """Attributes:
    cpu_seconds: of this process, which other processes do not lengthen.
    """

    num_steps: int
    num_requests: int
    seconds: float
    cpu_seconds: float

    @property
    def steps_per_minute(self) -> float:
        """Schedule-and-update of one rank, in CPU time."""
        return 60 * self.num_steps / self.cpu_seconds


def measure_scheduling(
    make_scheduler: MakeScheduler, *, num_steps: int, num_sequences: int = 64
) -> SchedulingSpeed:
    """Keep one rank full of sequences, and replace each that ends.

    Prompts of 1,000 to 2,800 tokens begin with shared blocks, and answers have 200 to 300, so
    that every few steps a request is matched, prefilled and released.
    """
    limits = SchedulerLimits(num_pages=64 * num_sequences, max_sequences=num_sequences)
    scheduler = make_scheduler(limits)
    for number in range(num_sequences):
        scheduler.add(_request(number))
    first = _take_steps(scheduler, _WARM_STEPS, num_sequences)
    seconds, cpu_seconds = perf_counter(), process_time()
    last = _take_steps(scheduler, num_steps, first)
    return SchedulingSpeed(
        num_steps=num_steps,
        num_requests=last - first,
        seconds=perf_counter() - seconds,
        cpu_seconds=process_time() - cpu_seconds,
    )


def measure_trace(
    requests: Sequence[SimulatedRequest], scheduler: str
) -> tuple[SchedulingSpeed, float]:
    """Simulate a whole trace on one worker.

    Returns:
        the speed, and the simulated seconds.

    Raises:
        SimulationError: no such scheduler is installed.
    """
    limits = SchedulerLimits(num_pages=_TRACE_PAGES)
    deployment = replace(together(PlainTimer(), limits), scheduler=scheduler)
    seconds, cpu_seconds = perf_counter(), process_time()
    result = simulate(deployment, requests, seed=0)
    speed = SchedulingSpeed(
        num_steps=result.num_steps,
        num_requests=result.num_finished,
        seconds=perf_counter() - seconds,
        cpu_seconds=process_time() - cpu_seconds,
    )
    return speed, result.seconds


def _take_steps(scheduler: Scheduler, num_steps: int, number: int) -> int:
    """Replace each request that ends, counting up from `number`."""
    for _ in range(num_steps):
        scheduler.schedule()
        for _ in scheduler.update().finished:
            scheduler.add(_request(number))
            number += 1
    return number


def _request(number: int) -> SimulatedRequest:
    prompt = 1000 + 37 * (number % _PROMPTS)
    family = number % _FAMILIES
    return SimulatedRequest(
        request_id=number,
        prompt_tokens=prompt,
        output_tokens=200 + number % 100,
        blocks=tuple(family * 100 + block for block in range(prompt // _BLOCK_TOKENS)),
        block_tokens=_BLOCK_TOKENS,
    )
