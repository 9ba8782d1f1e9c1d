"""Models that come while ranks serve."""

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOMEM
from threading import Event
from typing import cast
from weakref import ref

import pytest
from moe_devices.cpu_partition import partition_cores
from moe_devices.errors import DeviceError

from moe_serve.config.tree import ModelConfig
from moe_serve.errors import (
    CheckpointError,
    ConfigError,
    LedgerError,
    PlacementError,
    UnsupportedError,
)
from moe_serve.messages import ALL_RANKS, Fault, PlacedTenant, RankStats, TenantChange
from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.step.changes import Loaded, TenantChanges
from moe_serve.step.lane import Lane
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.tenant import Tenant
from moe_serve.step.tenants import Tenants
from moe_serve.types import Request, SamplingParams, ServedModel, TokenEvent

PAGE = 1 << 10
NEW = PlacedTenant(
    number=1,
    model=ModelConfig(path="new", name="visitor"),
    rank=ALL_RANKS,
    share=0.5,
    memory=2 * PAGE,
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


class Weights:
    """That a load has read."""


class Stuck:
    """An engine in the middle of a step that takes as long as the test wants."""

    descriptors = ()

    def __init__(self) -> None:
        self.has_work = False
        self.begun, self.may_end = Event(), Event()

    def add(self, request: Request) -> None:
        self.has_work = True

    def step(self) -> list[TokenEvent]:
        self.begun.set()
        assert self.may_end.wait(10)
        return []

    def abort_all(self) -> None:
        self.has_work = False

    def stats(self) -> RankStats:
        return RankStats(plan_rank=0)


def refuse(change: TenantChange) -> Loaded:
    raise AssertionError("nothing is to be loaded")


def until_ready(changes: TenantChanges, number: int) -> None:
    deadline = time.monotonic() + 10
    while changes.ready_number != number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


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
    # And what was booked last, after the load has ended and before any other step.
    ledger.book(NEW.number, "weights", 3 * PAGE)
    may_end.set()
    until_ready(changes, 1)
    news = changes.follow(1)
    assert news is not None and news.error == "enough"
    assert ledger.free_bytes == 0 and lent.num_held == 5


def test_a_load_that_fails_in_any_way_is_news_and_not_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(change: TenantChange) -> Loaded:
        raise KeyError("foo")

    changes = TenantChanges(0, Tenants(0, 1.0, [Tenant(number=0)]), fail)
    changes.take(TenantChange(number=1, kind="load", placed=NEW))
    until_ready(changes, 1)
    news = changes.follow(1)
    assert news is not None
    assert news.error.startswith("rank 0 cannot load model visitor: KeyError: 'foo'")
    assert "Traceback" in caplog.text


@contextmanager
def reading() -> Iterator[None]:
    """Takes whatever goes wrong for the file's fault."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"cannot read the file: {error}") from None


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        (CheckpointError("no tensor"), "model"),
        (ConfigError("too long a context"), "model"),
        (UnsupportedError("no such activation"), "model"),
        (ValueError("no kernel for so many columns"), "model"),
        (PlacementError("16 MiB asked"), "room"),
        (LedgerError("16 MiB asked"), "room"),
        (DeviceError("all of it is in use"), "room"),
        (MemoryError(), "room"),
        (OSError(ENOMEM, "Cannot allocate memory"), "room"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "room"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "rank"),
        (KeyError("foo"), "rank"),
    ],
    ids=repr,
)
def test_a_load_that_fails_says_whose_fault_it_is(failure: Exception, fault: Fault) -> None:
    assert fault_of(failure) == fault


@pytest.mark.parametrize(
    ("failure", "fault"), [(MemoryError(), "room"), (KeyError("foo"), "model")], ids=repr
)
def test_memory_that_ran_out_while_a_file_was_read_is_not_the_file_s_fault(
    failure: Exception, fault: Fault
) -> None:
    with pytest.raises(CheckpointError) as caught, reading():
        raise failure
    assert fault_of(caught.value) == fault


def fault_of(failure: Exception) -> Fault:
    """As the news of a load that ends with it has it."""

    def fail(change: TenantChange) -> Loaded:
        raise failure

    changes = TenantChanges(0, Tenants(0, 1.0, [Tenant(number=0)]), fail)
    changes.take(TenantChange(number=1, kind="load", placed=NEW))
    until_ready(changes, 1)
    news = changes.follow(1)
    assert news is not None and news.error
    return news.fault


def test_a_load_that_failed_leaves_nothing_at_once() -> None:
    """Neither what it had read by then, which its traceback holds."""
    read: list[ref[Weights]] = []

    def load(change: TenantChange) -> Loaded:
        weights = Weights()
        read.append(ref(weights))
        raise CheckpointError(f"what comes behind {weights} is truncated")

    changes = TenantChanges(0, Tenants(0, 1.0, []), load)
    gc.disable()
    try:
        changes.take(TenantChange(number=1, kind="load", placed=NEW))
        until_ready(changes, 1)
        news = changes.follow(1)
        assert news is not None and "is truncated" in news.error
        assert read[0]() is None
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_loading_and_freeing_leave_the_processor_to_the_steps() -> None:
    niceness: list[int] = []
    has_freed = Event()

    def own() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def load(change: TenantChange) -> Loaded:
        niceness.append(own())
        placed = change.placed
        return Tenant(number=placed.number), cast(ServedModel, None)

    def dismiss(gone: list[Tenant]) -> None:
        niceness.append(own())
        has_freed.set()

    tenants = Tenants(0, 1.0, [Tenant(number=0)])
    changes = TenantChanges(0, tenants, load, dismiss=dismiss)
    changes.take(TenantChange(number=1, kind="load", placed=NEW))
    until_ready(changes, 1)
    assert changes.follow(1) is not None
    changes.take(TenantChange(number=2, kind="unload", placed=NEW))
    assert changes.follow(2) is not None
    changes.rest()
    assert has_freed.wait(10)
    assert niceness == [max(10, own())] * 2


def test_steps_go_on_while_a_lane_that_is_taken_away_ends_its_last_one() -> None:
    engine, partition = Stuck(), partition_cores([])[0]
    lane = Lane(cast(RankEngine, engine), partition, "visitor")
    tenants = Tenants(0, 1.0, [Tenant(number=0), Tenant(number=1, lane=lane, takes_turns=False)])
    changes = TenantChanges(0, tenants, refuse)
    lane.submit(Request(request_id="a", prompt_ids=(1,), sampling=SamplingParams()))
    assert engine.begun.wait(10)
    begun = time.monotonic()
    changes.take(TenantChange(number=1, kind="unload", placed=NEW))
    (event,) = tenants.lane_events()
    assert (event.request_id, event.finish_reason) == ("a", "error")
    assert changes.is_preparing and changes.ready_number == 0
    assert changes.follow(changes.ready_number) is None and 1 in tenants
    assert time.monotonic() - begun < 1.0
    engine.may_end.set()
    until_ready(changes, 1)
    news = changes.follow(1)
    assert news is not None and not news.error and 1 not in tenants
