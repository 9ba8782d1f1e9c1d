"""A tenant that is told to keep to its guarantee, or allowed beyond it, while it serves."""

from collections.abc import Sequence

import pytest

from moe_serve.schedule.ledger import MemoryLedger

PAGE = 1 << 12


def discard(page_ids: Sequence[int]) -> None:
    pass


def test_a_tenant_turns_hard_and_back_again() -> None:
    ledger = MemoryLedger(40 * PAGE)
    ledger.book(0, "weights", 4 * PAGE)
    budget = ledger.open_pages(0, PAGE, 10, 30, discard, 30)
    ledger.resize(0, 16 * PAGE, is_hard=True)
    assert (budget.guaranteed, budget.limit) == (12, 12)
    ledger.resize(0, 18 * PAGE)
    assert (budget.guaranteed, budget.limit) == (14, 14), "it stays hard"
    ledger.resize(0, 14 * PAGE, is_hard=False)
    assert (budget.guaranteed, budget.limit) == (10, 30)


@pytest.mark.parametrize("is_hard", [True, False])
def test_what_cannot_lend_keeps_what_it_has(is_hard: bool) -> None:
    ledger = MemoryLedger(40 * PAGE)
    budget = ledger.open_pages(0, PAGE, 10, 10)
    ledger.resize(0, 10 * PAGE, is_hard=is_hard)
    assert (budget.guaranteed, budget.limit) == (10, 10)
