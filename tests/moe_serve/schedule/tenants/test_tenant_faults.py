"""Proof that the checks of the tenants' lives see what they are there to see."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase

from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.schedule.page_budget import PageBudget
from moe_serve.schedule.page_cache import PageCache
from moe_serve.schedule.pages import PagePool
from moe_serve.schedule.scheduler import Scheduler


class BoundlessBudget(PageBudget):
    """Borrows a page more than its limit."""

    def _borrow(self, num_pages: int, free: Any) -> int:
        self.limit += 1
        num_pages = super()._borrow(num_pages, free)
        self.limit -= 1
        return num_pages


class ForgetfulBudget(PageBudget):
    """Counts a page that was given back as held."""

    def give_back(self, num_pages: int) -> None:
        super().give_back(num_pages)
        self.num_held += num_pages > 1


class HoardingBudget(PageBudget):
    """Gives pages back and keeps what they hold."""

    def give_back(self, num_pages: int) -> None:
        self._discard = lambda page_ids: None
        super().give_back(num_pages)


class TimidBudget(PageBudget):
    """Counts only on what others can spare, as if nothing were promised."""

    @property
    def num_obtainable(self) -> int:
        guaranteed, self.guaranteed = self.guaranteed, 0
        num_pages = super().num_obtainable
        self.guaranteed = guaranteed
        return num_pages


class RobbingBudget(PageBudget):
    """Lets others have all that it has cached, guaranteed or not."""

    @property
    def num_loose(self) -> int:
        return self._lender.num_kept + self._lender.num_cached


class LenientBudget(PageBudget):
    """Gives up pages that its live requests may need."""

    @property
    def num_needed(self) -> int:
        return 0


class CarelessCache(PageCache):
    """Gives back a page that is in use as well."""

    def give_back(self, num_pages: int) -> list[int]:
        page_ids = super().give_back(num_pages)
        used = [page for page in range(self.pool.num_pages) if self.pool.references(page)]
        return [*page_ids, *used[:1]]


class LeakingPool(PagePool):
    """Loses a page that is given back."""

    def remove(self, num_pages: int) -> list[int]:
        removed = super().remove(num_pages)
        self._absent.pop()
        return removed


class OverdrawnLedger(MemoryLedger):
    """Does not count what is booked as held."""

    @property
    def free_bytes(self) -> int:
        return super().free_bytes + self._booked.total


class SelfishLedger(MemoryLedger):
    """Keeps for each tenant what only one at a time needs."""

    def book(self, tenant: int, what: str, num_bytes: int, *, in_turn: bool = False) -> None:
        super().book(tenant, what, num_bytes)


class KindLedger(MemoryLedger):
    """Sets nobody back, also where that breaks a promise."""

    def free(self, num_bytes: int, wanting: PageBudget | None) -> None:
        self._take_back(num_bytes, self._others(wanting), lambda each: each.num_loose)


class ForgetfulLedger(MemoryLedger):
    """Keeps what a closed tenant was promised."""

    def close(self, tenant: int) -> None:
        booked = self._booked
        super().close(tenant)
        self._booked = booked


class UnfairScheduler(Scheduler):
    """Sets the oldest sequence back for others."""

    def _preempt_for_others(self) -> None:
        first = next(iter(self._running))
        self._running[first] = self._running.pop(first)
        super()._preempt_for_others()


@pytest.mark.parametrize(
    ("room", "fault", "seen"),
    [
        ("ledger.PageBudget", BoundlessBudget, "a tenant is beyond its limit|[0-9]+ pages asked"),
        ("ledger.PageBudget", ForgetfulBudget, "budget and pool hold different|bytes are"),
        ("ledger.PageBudget", HoardingBudget, "not discarded"),
        ("ledger.PageBudget", TimidBudget, "a promise cannot be kept|no progress|r[0-9]+ does not"),
        ("ledger.PageBudget", RobbingBudget, "a promised page is taken from a cache"),
        ("ledger.PageBudget", LenientBudget, "a resize is let through that harms"),
        ("page_cache.PagePool", LeakingPool, "a page is lost"),
        (
            "scheduler.PageCache",
            CarelessCache,
            "reads a page with foreign|a page of the prefix|the tree",
        ),
        ("ledger_type", OverdrawnLedger, "bytes are miscounted|more is held than there is"),
        ("ledger_type", SelfishLedger, "bytes are refused that are left|promises are miscounted"),
        ("ledger_type", KindLedger, "more is held than there is"),
        ("ledger_type", ForgetfulLedger, "a closed tenant holds something"),
        ("scheduler_type", UnfairScheduler, "the oldest was preempted"),
    ],
)
def test_checks_see_planted_fault(
    room: str,
    fault: type[Any],
    seen: str,
    machine_type: Callable[..., Any],
    run_machine: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "." in room:
        monkeypatch.setattr(f"moe_serve.schedule.{room}", fault)
        machine = machine_type()
    else:
        machine = machine_type(**{room: fault})
    # Generated only: shrinking would find the smallest failure, and any is enough here.
    with pytest.raises(AssertionError, match=f"^(?:{seen})"):
        run_machine(machine, max_examples=300, phases=[Phase.generate])
