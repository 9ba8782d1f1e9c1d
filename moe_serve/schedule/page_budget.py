"""How many cache pages one tenant holds, may hold, and lends, by the rank's ledger."""

from collections.abc import Callable, Sequence
from typing import Protocol

from moe_serve.errors import LedgerError

Discard = Callable[[Sequence[int]], None]


class Ledger(Protocol):
    """What a budget asks of `ledger.MemoryLedger`, which says more."""

    def settle(self) -> None: ...

    def loose_bytes(self, wanting: "PageBudget") -> int: ...

    def free_kept(self, num_bytes: int, wanting: "PageBudget") -> int: ...

    def free_loose(self, num_bytes: int, wanting: "PageBudget") -> int: ...

    def free(self, num_bytes: int, wanting: "PageBudget") -> None: ...


class Lender(Protocol):
    """A tenant's pages, as the ledger takes them back while the tenant is between its steps."""

    @property
    def num_kept(self) -> int:
        """Pages that hold nothing."""
        ...

    @property
    def num_cached(self) -> int:
        """Pages that only the prefix tree holds."""
        ...

    @property
    def num_used(self) -> int:
        """Pages that sequences hold."""
        ...

    @property
    def num_largest(self) -> int:
        """Pages that the longest of the live requests may need."""
        ...

    def give_back(self, num_pages: int) -> Sequence[int]:
        """Hold so many pages less, first of those that hold nothing, then of cached ones."""
        ...

    def preempt_latest(self) -> None:
        """Set the latest running sequence back; never the oldest."""
        ...


class _NoPages:
    """Of a tenant that lends nothing."""

    num_kept = num_cached = num_used = num_largest = 0

    def give_back(self, num_pages: int) -> Sequence[int]:
        raise AssertionError("there are no pages to give back")

    def preempt_latest(self) -> None:
        raise AssertionError("there are no sequences to set back")


class PageBudget:
    """
    Attributes:
        page_bytes, guaranteed, limit, capacity: see `MemoryLedger.open_pages`.
        num_held: pages that take memory.
    """

    def __init__(
        self,
        ledger: Ledger,
        page_bytes: int,
        guaranteed: int,
        limit: int,
        capacity: int,
        discard: Discard | None,
    ) -> None:
        self.page_bytes = page_bytes
        self.guaranteed = guaranteed
        self.limit = limit
        self.capacity = capacity
        self.num_held = guaranteed if discard is None else 0
        self._ledger = ledger
        self._discard = discard
        self._lender: Lender = _NoPages()

    @property
    def is_fixed(self) -> bool:
        """It always holds what it is guaranteed, and other tenants are nothing to it."""
        return self._discard is None

    def check(self, guaranteed: int, limit: int) -> None:
        """Raise the LedgerError of a change that does not suit it, whatever is in use."""
        assert guaranteed <= limit
        asked = f"{self._pages(guaranteed)} of cache asked for a model"
        kept, room = map(self._pages, (self.guaranteed, self.capacity))
        if guaranteed < 1:
            least = self._pages(1)
            raise LedgerError(f"{asked}, it needs at least {least}; raise its slice.memory_mb")
        if self.is_fixed and guaranteed != self.guaranteed:
            raise LedgerError(f"{asked}, it keeps its {kept} here; load it anew instead")
        if limit > self.capacity:
            raise LedgerError(f"{asked}, its cache has room for {room}; load it anew instead")

    def check_use(self, guaranteed: int, limit: int) -> None:
        """Raise the LedgerError of a change to less than is in use."""
        asked = f"{self._pages(guaranteed)} of cache asked for a model"
        needed, used = map(self._pages, (self.num_needed, self.num_used))
        if guaranteed < self.num_needed:
            raise LedgerError(f"{asked}, {needed} are in use or may soon be; try again later")
        if limit < self.num_used:
            most = f"at most {self._pages(limit)} of cache asked for a model"
            raise LedgerError(f"{most}, {used} are in use; try again later")

    def attach(self, lender: Lender) -> None:
        """The tenant lends from here on, if it can."""
        if not self.is_fixed:
            self._lender = lender

    def detach(self) -> None:
        """The tenant is gone, its cache with it."""
        self._lender, self._discard = _NoPages(), None
        self.guaranteed = self.limit = self.num_held = 0

    def settle(self) -> None:
        """To be called before a step is formed."""
        if not self.is_fixed:
            self._ledger.settle()

    @property
    def num_obtainable(self) -> int:
        """Pages to be had besides those held, at no cost to this tenant."""
        num_allowed = self.limit - self.num_held
        if num_allowed <= 0:
            return 0
        num_loose = self._ledger.loose_bytes(self) // self.page_bytes
        return max(0, self.guaranteed - self.num_held, min(num_allowed, num_loose))

    def take(self, num_pages: int) -> int:
        """Hold more pages: those that it is promised, and above that what nobody uses.

        Returns:
            How many; fewer than asked for where there are no more.
        """
        num_promised = min(num_pages, max(0, self.guaranteed - self.num_held))
        if num_promised:
            self._ledger.free(num_promised * self.page_bytes, self)
            self.num_held += num_promised
        return num_promised + self._borrow(num_pages - num_promised, self._ledger.free_kept)

    def take_cached(self, num_pages: int) -> int:
        """Hold more pages, also of those that others hold above their guarantee as a cache."""
        return self._borrow(num_pages, self._ledger.free_loose)

    def give_back(self, num_pages: int) -> None:
        """Hold so many pages less, none of which a sequence uses."""
        if num_pages:
            assert self._discard is not None
            self._discard(self._lender.give_back(num_pages))
            self.num_held -= num_pages

    def preempt_latest(self) -> None:
        assert self.lent_bytes > 0, "more is promised than there is"
        self._lender.preempt_latest()

    @property
    def held_bytes(self) -> int:
        return self.num_held * self.page_bytes

    @property
    def promised_bytes(self) -> int:
        return self.guaranteed * self.page_bytes

    @property
    def lent_bytes(self) -> int:
        """What is held above the guarantee; below 0 where less is held."""
        return self.held_bytes - self.promised_bytes

    @property
    def num_kept(self) -> int:
        """Pages that are held and hold nothing."""
        return self._lender.num_kept

    @property
    def num_loose(self) -> int:
        """These, and cached ones above the guarantee."""
        num_kept = self._lender.num_kept
        num_above = max(0, self.num_held - num_kept - self.guaranteed)
        return num_kept + min(self._lender.num_cached, num_above)

    @property
    def num_used(self) -> int:
        """Pages that sequences hold."""
        return self._lender.num_used

    @property
    def num_needed(self) -> int:
        """Guaranteed pages that it cannot do without now."""
        return max(min(self._lender.num_used, self.guaranteed), self._lender.num_largest)

    def _pages(self, count: int) -> str:
        return f"{mib(count * self.page_bytes)} ({count} page{'s' * (count != 1)})"

    def _borrow(self, num_pages: int, free: Callable[[int, "PageBudget"], int]) -> int:
        num_pages = min(num_pages, self.limit - self.num_held)
        if num_pages <= 0:
            return 0
        num_free = free(num_pages * self.page_bytes, self) // self.page_bytes
        num_pages = max(0, min(num_pages, num_free))
        self.num_held += num_pages
        return num_pages


def mib(num_bytes: int) -> str:
    """For messages: users ask in MiB."""
    return f"{num_bytes / 2**20:.1f} MiB"
