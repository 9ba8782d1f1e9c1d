"""A tenant that is told to keep to its guarantee, or allowed beyond it, while it serves."""

import re
from collections.abc import Sequence

import pytest

from moe_serve.errors import LedgerError
from moe_serve.schedule.ledger import MemoryLedger

PAGE = 1 << 12


class Busy:
    """Sequences hold nine pages."""

    num_kept = num_cached = num_largest = 0
    num_used = 9

    def give_back(self, num_pages: int) -> Sequence[int]:
        raise AssertionError("refused before it is asked")

    def preempt_latest(self) -> None:
        raise AssertionError("refused before it is asked")


def discard(page_ids: Sequence[int]) -> None:
    pass


def test_a_tenant_turns_hard_and_back_again() -> None:
    ledger = MemoryLedger(40 * PAGE)
    ledger.book(0, "weights", 4 * PAGE)
    budget = ledger.open_pages(0, PAGE, 10, 30, discard, 30)
    ledger.resize(0, 16 * PAGE, is_hard=True)
    assert (budget.guaranteed, budget.limit) == (12, 12)
    ledger.resize(0, 14 * PAGE, is_hard=False)
    assert (budget.guaranteed, budget.limit) == (10, 30)


def test_refusals_say_what_was_asked_in_the_unit_of_the_slice() -> None:
    """Somebody asks for MiB, and may know nothing of pages."""
    ledger = MemoryLedger(40 << 20)
    budget = ledger.open_pages(0, 1 << 20, 10, 10, discard, 20)
    with pytest.raises(LedgerError, match=r"^21\.0 MiB \(21 pages\) of cache asked .* 20\.0 MiB"):
        ledger.resize(0, 21 << 20, is_hard=True)
    lender = Busy()
    budget.attach(lender)
    message = (
        "at most 8.0 MiB (8 pages) of cache asked for a model, 9.0 MiB (9 pages) are in use; "
        "try again later"
    )
    # More than the guarantee was lent to it, and is used.
    budget.guaranteed = 5
    with pytest.raises(LedgerError, match=f"^{re.escape(message)}$"):
        ledger.resize_pages(0, 8, 8)


@pytest.mark.parametrize("is_hard", [True, False])
def test_what_cannot_lend_keeps_what_it_has(is_hard: bool) -> None:
    ledger = MemoryLedger(40 * PAGE)
    budget = ledger.open_pages(0, PAGE, 10, 10)
    ledger.resize(0, 10 * PAGE, is_hard=is_hard)
    assert (budget.guaranteed, budget.limit) == (10, 10)
