"""Models that come while ranks serve."""

from collections.abc import Sequence
from threading import Event

from moe_serve.config.tree import ModelConfig
from moe_serve.errors import LedgerError
from moe_serve.messages import ALL_RANKS, PlacedTenant, TenantChange
from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.step.changes import Loaded, TenantChanges
from moe_serve.step.tenants import Tenant, Tenants

PAGE = 1 << 10
NEW = PlacedTenant(
    number=1, model=ModelConfig(path="new"), rank=ALL_RANKS, share=0.5, memory=2 * PAGE
)


class Cache:
    """Pages that hold nothing any more, all of which may go."""

    num_cached = num_used = num_largest = 0

    def __init__(self, num_pages: int) -> None:
        self.num_kept = num_pages

    def give_back(self, num_pages: int) -> Sequence[int]:
        self.num_kept -= num_pages
        return range(num_pages)

    def preempt_latest(self) -> None:
        raise AssertionError("no sequence is there")


def test_what_was_lent_is_taken_back_while_all_sleep_and_a_model_loads() -> None:
    ledger = MemoryLedger(8 * PAGE)
    lent = ledger.open_pages(0, PAGE, guaranteed=2, limit=8, discard=lambda pages: None)
    lent.attach(Cache(8))
    assert lent.take(8) == 8 and ledger.free_bytes == 0
    has_booked, may_end = Event(), Event()

    def load(change: TenantChange) -> Loaded:
        ledger.book(change.placed.number, "weights", change.placed.memory)
        has_booked.set()
        assert may_end.wait(10)
        raise LedgerError("enough")

    changes = TenantChanges(0, Tenants(0, 1.0, [Tenant(number=0)]), load, ledger.settle)
    changes.rest()
    changes.take(TenantChange(number=1, kind="load", placed=NEW))
    assert has_booked.wait(10) and ledger.free_bytes == -2 * PAGE
    changes.rest()
    assert ledger.free_bytes == 0 and lent.num_held == 6
    may_end.set()
