"""Who holds how many bytes of one rank's memory, and who lends cache pages to whom.

Each tenant's booked bytes and guaranteed pages are promised to it; promises never exceed what there
is. What is promised and not used is lent: a tenant may hold pages above its guarantee, until they
are wanted by one that is below its own. As a hypervisor's balloons do (Waldspurger, OSDI 2002), but
between the steps of one process, so that nobody waits.
"""

from collections.abc import Callable, Iterable
from threading import Lock

from moe_serve.errors import LedgerError
from moe_serve.schedule.bookings import Bookings
from moe_serve.schedule.page_budget import Discard, PageBudget, mib

# Entry of the pages that a tenant holds.
CACHE = "cache"


class MemoryLedger:
    """
    Pages are taken and given back by one thread, between steps or inside one tenant's `schedule`.
    Tenants may be booked for by another thread: what is lent is then taken back at the next step.

    Args:
        total_bytes: for all tenants of the rank.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._lock = Lock()
        # Never changed, always replaced: the other thread may be reading them.
        self._booked = Bookings()
        self._budgets: dict[int, PageBudget] = {}

    @property
    def total_bytes(self) -> int:
        return self._total_bytes

    @property
    def promised_bytes(self) -> int:
        """What tenants can rely on."""
        pages = sum([each.promised_bytes for each in self._budgets.values()])
        return self._booked.total + pages

    @property
    def free_bytes(self) -> int:
        """What nobody holds; below 0 where lent pages are wanted back by `settle`."""
        return self._total_bytes - self.held_bytes

    @property
    def held_bytes(self) -> int:
        """What all tenants hold together; less than the sum of what each holds, where they have
        parts in turn."""
        return self._booked.total + sum([each.held_bytes for each in self._budgets.values()])

    def entries(self, tenant: int) -> dict[str, int]:
        """Bytes that a tenant holds, by part."""
        entries = self._booked.of(tenant)
        if tenant in self._budgets:
            entries[CACHE] = self._budgets[tenant].held_bytes
        return entries

    def held(self, tenant: int) -> int:
        """Bytes that a tenant holds."""
        return sum(self.entries(tenant).values())

    def book(self, tenant: int, what: str, num_bytes: int, *, in_turn: bool = False) -> None:
        """Give a tenant a fixed part, in the place of one of the same name.

        Args:
            in_turn: only needed in the tenant's steps, while others need none of theirs.

        Raises:
            LedgerError: so much is not left by what is promised.
        """
        with self._lock:
            booked = self._booked.put(tenant, what, num_bytes, in_turn=in_turn)
            self._require(booked.total - self._booked.total, f"{what} of a model")
            self._booked = booked

    def open_pages(
        self,
        tenant: int,
        page_bytes: int,
        guaranteed: int,
        limit: int,
        discard: Discard | None = None,
        capacity: int = 0,
    ) -> PageBudget:
        """Give a tenant pages, of which it holds none yet.

        Args:
            guaranteed: how many it may always hold.
            limit: how many it may hold at most, while others leave theirs unused.
            discard: gives back the memory of pages by their ids; None where memory that was taken
                stays taken, and a tenant holds what it is guaranteed from the start.
            capacity: pages of its cache, up to which it may grow later; its limit if 0.

        Raises:
            LedgerError: so much is not left by what is promised, or there is not a page.
        """
        assert tenant not in self._budgets, f"tenant {tenant} has pages"
        assert discard is not None or limit == guaranteed, "what stays taken is not lent"
        capacity = capacity or limit
        with self._lock:
            budget = PageBudget(self, page_bytes, guaranteed, limit, capacity, discard)
            budget.check(guaranteed, limit)
            self._require(budget.promised_bytes, f"cache of a model ({guaranteed} pages)")
            self._budgets = {**self._budgets, tenant: budget}
        return budget

    def resize(self, tenant: int, num_bytes: int, *, is_hard: bool, restores: bool = False) -> int:
        """Let a tenant's booked parts and guaranteed pages have so many bytes together -> how many
        pages that are.

        Args:
            is_hard: it may hold no more than that; else as much as its cache has room for.
            restores: it had as much before; what it uses above that is lent to it, or taken back.

        Raises:
            LedgerError: others leave less, or it uses more.
        """
        booked = sum(self._booked.of(tenant).values())
        budget = self._budgets.get(tenant)
        if budget is None:
            if num_bytes < booked:
                raise LedgerError(f"{mib(num_bytes)} asked for a model, it holds {mib(booked)}")
            return 0
        if num_bytes < booked + budget.page_bytes:
            raise LedgerError(
                f"{mib(num_bytes)} asked for a model, its weights and working space take "
                f"{mib(booked)}, and its cache some more; raise its slice.memory_mb"
            )
        guaranteed = (num_bytes - booked) // budget.page_bytes
        is_bound = is_hard or budget.is_fixed
        limit = guaranteed if is_bound else max(guaranteed, budget.capacity)
        self.resize_pages(tenant, guaranteed, limit, restores=restores)
        return guaranteed

    def resize_pages(
        self, tenant: int, guaranteed: int, limit: int, *, restores: bool = False
    ) -> None:
        """Change what a tenant may hold, between steps.

        Raises:
            LedgerError: others leave less, or it uses more.
        """
        budget = self._budgets[tenant]
        with self._lock:
            budget.check(guaranteed, limit)
            if not restores:
                budget.check_use(guaranteed, limit)
            more = (guaranteed - budget.guaranteed) * budget.page_bytes
            self._require(more, f"cache of a model ({guaranteed} pages)")
            budget.guaranteed, budget.limit = guaranteed, limit
        while budget.num_used > limit:
            budget.preempt_latest()
        budget.give_back(max(0, budget.num_held - limit))

    def close(self, tenant: int) -> None:
        """Take all that a tenant has, which runs no more."""
        with self._lock:
            if tenant in self._budgets:
                self._budgets[tenant].detach()
            self._booked = self._booked.without(tenant)
            self._budgets = {
                number: each for number, each in self._budgets.items() if number != tenant
            }

    def settle(self) -> None:
        """Between steps: take back what was lent and has been promised to others since."""
        if self.free_bytes < 0:
            self.free(0, None)

    def loose_bytes(self, wanting: PageBudget) -> int:
        """What a tenant may have without setting back another's sequence."""
        return self.free_bytes + sum(
            [each.num_loose * each.page_bytes for each in self._others(wanting)]
        )

    def free_kept(self, num_bytes: int, wanting: PageBudget) -> int:
        """Free bytes, as many as wanted if others have pages that hold nothing -> free bytes."""
        return self._take_back(num_bytes, self._others(wanting), lambda each: each.num_kept)

    def free_loose(self, num_bytes: int, wanting: PageBudget) -> int:
        """The same, and also what only the prefix trees of those above their guarantee hold."""
        return self._take_back(num_bytes, self._others(wanting), lambda each: each.num_loose)

    def free(self, num_bytes: int, wanting: PageBudget | None) -> None:
        """The same, and then from sequences, the latest one of whoever is furthest above its
        guarantee first; for what is promised that is always enough."""
        others = self._others(wanting)
        self._take_back(num_bytes, others, lambda each: each.num_kept)
        while self._take_back(num_bytes, others, lambda each: each.num_loose) < num_bytes:
            max(others, key=_lent_bytes).preempt_latest()

    def _take_back(
        self, num_bytes: int, others: Iterable[PageBudget], count: Callable[[PageBudget], int]
    ) -> int:
        free = self.free_bytes
        for budget in sorted(others, key=_lent_bytes, reverse=True):
            if free >= num_bytes:
                break
            num_pages = min(count(budget), -(-(num_bytes - free) // budget.page_bytes))
            budget.give_back(num_pages)
            free += num_pages * budget.page_bytes
        return free

    def _others(self, wanting: PageBudget | None) -> list[PageBudget]:
        return [each for each in self._budgets.values() if each is not wanting]

    def _require(self, num_bytes: int, what: str) -> None:
        left = self._total_bytes - self.promised_bytes
        if num_bytes > left:
            raise LedgerError(
                f"{what}: {mib(num_bytes)} asked, {mib(left)} of {mib(self._total_bytes)} are "
                "not promised yet; lower its slice.memory_mb or another model's"
            )


def pages_alone(num_pages: int) -> PageBudget:
    """All pages of a rank, for its only tenant."""
    return MemoryLedger(num_pages).open_pages(0, 1, num_pages, num_pages)


def _lent_bytes(budget: PageBudget) -> int:
    return budget.lent_bytes
