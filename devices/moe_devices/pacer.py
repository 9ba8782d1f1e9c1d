"""How long segments of a step last: as long as they take, or as long as declared."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from moe_devices.work import Pace, Work

# A sleep ends up to 0.1 ms late on an idle core; yielding for the rest keeps others running.
_YIELD_SECONDS = 0.0002
# Share of a segment's declared time by which its end may be late.
_TOLERANCE = 0.05


@dataclass(slots=True)
class SegmentCount:
    """Segments of one name that had a deadline.

    Attributes:
        num_overruns: those that ended too late for their figures to mean anything.
        overrun_seconds: how late these ended, together; of the scaled time.
    """

    num_segments: int = 0
    num_overruns: int = 0
    overrun_seconds: float = 0.0


class Pacer(Protocol):
    """Told of each segment of a step when its work is done."""

    @property
    def is_real(self) -> bool:
        """Whether no segment ever waits."""
        ...

    @property
    def counts(self) -> Mapping[str, SegmentCount]:
        """By the segments' names; empty where nothing is declared."""
        ...

    def wait(self, begun: float, work: Callable[[], Work]) -> None:
        """Return when the segment may end.

        Args:
            begun: when it began, in seconds of `time.perf_counter`.
            work: what it was; asked for only where that matters.
        """
        ...


class RealTime:
    """Implements Pacer for devices that take the time they take."""

    is_real = True

    @property
    def counts(self) -> Mapping[str, SegmentCount]:
        return {}

    def wait(self, begun: float, work: Callable[[], Work]) -> None:
        return


class DeadlinePacer:
    """Implements Pacer for an emulated device: a segment ends at its deadline.

    One that has nothing declared ends at once and is not counted. One that ends more than 5 % of
    its declared time late, as its work or the system took so long, is an overrun.

    Args:
        pace: declared seconds of a segment's work.
        time_scale: all of them last so many times longer.
    """

    is_real = False

    def __init__(self, pace: Pace, time_scale: float) -> None:
        self._pace = pace
        self._time_scale = time_scale
        self._counts: dict[str, SegmentCount] = {}

    @property
    def counts(self) -> Mapping[str, SegmentCount]:
        return self._counts

    def wait(self, begun: float, work: Callable[[], Work]) -> None:
        done = work()
        seconds = self._pace(done) * self._time_scale
        if seconds <= 0.0:
            return
        late = sleep_until(begun + seconds)
        count = self._counts.setdefault(done.segment, SegmentCount())
        count.num_segments += 1
        if late > seconds * _TOLERANCE:
            count.num_overruns += 1
            count.overrun_seconds += late


def sleep_until(deadline: float) -> float:
    """Wait for a time of `time.perf_counter`; -> how late it is by then, never below 0."""
    while (left := deadline - time.perf_counter()) > 0.0:
        if left > _YIELD_SECONDS:
            time.sleep(left - _YIELD_SECONDS)
        else:
            os.sched_yield()
    return -left
