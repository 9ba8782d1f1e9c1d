"""The simulation's clock: what happens next, and when."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

Action = Callable[[], None]


class EventQueue:
    """Runs actions in order of time; at the same time the ones planned first come first.

    Attributes:
        now: seconds since the start.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = count()
        self._events: list[tuple[float, bool, int, Action]] = []

    @property
    def has_more(self) -> bool:
        return bool(self._events)

    def at(self, time: float, action: Action, *, last: bool = False) -> None:
        """Plan an action; a `last` one comes after all others of the same time."""
        heappush(self._events, (max(time, self.now), last, next(self._numbers), action))

    def run(self, until: float) -> None:
        """Run all that happens up to a time, at which it then is if more is to come."""
        while self._events and self._events[0][0] <= until:
            self.now, _, _, action = heappop(self._events)
            action()
        if self._events:
            self.now = max(self.now, until)
