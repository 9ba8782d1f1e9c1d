"""The line of those that wait: who is next, and whether there is room."""

from collections.abc import Iterator, Mapping

from moe_serve.schedule.admission import Forerunners
from moe_serve.schedule.page_cache import PageCache
from moe_serve.schedule.sequence import Sequence
from moe_serve.schedule.step_plan import StepPlan


class WaitingLine:
    """First come, first served, but that some are held back without holding up others: those that
    let a running one compute what both begin with, and those whose prompt another rank has not
    begun to compute.

    Args:
        waiting, running: by request id, in their order; the scheduler moves them.
    """

    def __init__(
        self,
        cache: PageCache,
        waiting: Mapping[str, Sequence],
        running: Mapping[str, Sequence],
        max_running: int,
    ) -> None:
        self._cache = cache
        self._waiting = waiting
        self._running = running
        self._max_running = max_running

    @property
    def can_move(self) -> bool:
        """Whether `admit` may let somebody in, given tokens to compute."""
        return self._first() is not None

    @property
    def num_cached(self) -> int:
        """Leading tokens, already computed, of whoever `admit` may let in first."""
        first = self._first()
        return len(self._cache.match(first)) * self._cache.page_size if first else 0

    def _first(self) -> Sequence | None:
        num_places = self._max_running - len(self._running)
        for sequence in self._waiting.values():
            if num_places <= 0:
                return None
            if sequence.awaits_forerunner:
                num_places -= 1
            elif not sequence.awaits_offer:
                return sequence if self._has_room(sequence) else None
        return None

    def admit(self, step: StepPlan) -> Iterator[Sequence]:
        """Those that may run and have their pages now; each is to be moved before the next."""
        forerunners = Forerunners(self._cache, self._running.values())
        num_held_back = 0
        for sequence in tuple(self._waiting.values()):
            # Those that wait for a forerunner keep their places among the running.
            num_places = self._max_running - len(self._running) - num_held_back
            if not step.budget or num_places <= 0:
                return
            if sequence.awaits_offer:
                continue
            if sequence.awaits_forerunner:
                num_held_back += 1
                continue
            if not self._has_room(sequence):
                return
            matched = self._cache.match(sequence)
            if forerunners.defer(sequence, matched):
                num_held_back += 1
                continue
            sequence.num_wanted = self._cache.num_wanted(sequence, matched)
            if not self._has_room(sequence):
                return
            self._cache.place(sequence, matched)
            yield sequence
            forerunners.enlist(sequence)

    def _has_room(self, sequence: Sequence) -> bool:
        # A page for each running one to grow into: else the newcomer would soon be preempted.
        return sequence.num_wanted + len(self._running) <= self._cache.num_available
