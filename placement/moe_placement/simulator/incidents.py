"""What befalls workers while they serve: failures, and other plans."""

from dataclasses import dataclass
from math import inf

from moe_placement.cost.step_timer import StepTimer
from moe_placement.simulator.errors import SimulationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A worker, or one rank of it, loses all it holds and takes no requests for a while.

    KV caches that have left it are not lost with it.

    Attributes:
        at: seconds.
        worker: its index.
        rank: None is all of them.
        until: seconds; never by default.
        pause: seconds that the ranks left take to go on without the one that died; they then
            repeat their step.
        timer: of the worker while the rank is away; None is its own.
    """

    worker: int
    at: float
    until: float = inf
    rank: int | None = None
    pause: float = 0.0
    timer: StepTimer | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.at < self.until and 0 <= self.pause < inf):
            raise SimulationError(
                f"worker {self.worker} fails at {self.at:g} until {self.until:g} with a pause of "
                f"{self.pause:g} s; give times that grow from 0, and a pause of 0 or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSwitch:
    """A worker moves experts and then runs another plan; or its load drifts, without a move.

    Attributes:
        timer: from when all is moved on.
        num_bytes: to move, over `link`.
        bytes_per_step: at most; all of them, which is a pause, by default.
        bandwidth: bytes/s that the moves reach.
        overlaps: a step lasts as long as the longer of its move and itself, not both.
    """

    worker: int
    at: float
    timer: StepTimer
    num_bytes: float = 0.0
    link: str = ""
    bytes_per_step: float = inf
    bandwidth: float = inf
    overlaps: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.at < inf:
            raise SimulationError(
                f"worker {self.worker} switches at {self.at:g} s; give a time of 0 or more"
            )
        if self.num_bytes < 0 or not min(self.bytes_per_step, self.bandwidth) > 0:
            raise SimulationError(
                f"a switch moves {self.num_bytes:g} bytes, {self.bytes_per_step:g} a step at "
                f"{self.bandwidth:g} bytes/s; give at least 0, and more than 0"
            )
