"""A scheduler's pages as the rank's ledger takes them back for other tenants."""

from collections.abc import Callable, Mapping

from moe_serve.schedule.page_cache import PageCache
from moe_serve.schedule.sequence import Sequence


class SchedulerPages:
    """Implements `page_budget.Lender`.

    Args:
        waiting, running: the scheduler's own, by request id.
        preempt_latest: sets the latest running sequence back.
    """

    def __init__(
        self,
        cache: PageCache,
        waiting: Mapping[str, Sequence],
        running: Mapping[str, Sequence],
        preempt_latest: Callable[[], None],
    ) -> None:
        self._cache = cache
        self._waiting = waiting
        self._running = running
        self.preempt_latest = preempt_latest

    @property
    def num_kept(self) -> int:
        return self._cache.pool.num_free

    @property
    def num_cached(self) -> int:
        return self._cache.num_cached

    @property
    def num_used(self) -> int:
        return self._cache.num_used

    @property
    def num_largest(self) -> int:
        live = (*self._running.values(), *self._waiting.values())
        page_size = self._cache.page_size
        return max([each.max_pages(page_size) for each in live], default=0)

    def give_back(self, num_pages: int) -> list[int]:
        return self._cache.give_back(num_pages)
