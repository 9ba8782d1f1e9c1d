"""The ledger's policy, by example."""

import gc
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import pytest

from moe_serve.errors import LedgerError, RequestError
from moe_serve.schedule.ledger import MemoryLedger

MIB = 1 << 20
# Of requests whose names are so far apart the prompts are alike.
NUM_HEADS = 97


def forget(page_ids: Sequence[int]) -> None:
    """What a device does with pages in these tests."""


@pytest.fixture
def open_world(world_type: Any) -> Callable[..., Any]:
    """A tenant's world, on a ledger; pages of one byte and one token."""

    def make(ledger: MemoryLedger, number: int, guaranteed: int, limit: int, **limits: Any) -> Any:
        budget = ledger.open_pages(number, 1, guaranteed, limit, forget)
        limits = {"page_size": 1, "prefix_caching": False} | limits
        return world_type(num_pages=limit, budget=budget, **limits)

    return make


def held(world: Any) -> int:
    num_pages: int = world.limits["budget"].num_held
    return num_pages


def add(world: Any, make_request: Any, names: str, num_prompt: int, max_tokens: int) -> None:
    for name in names:
        prompt_ids = (ord(name) % NUM_HEADS, *range(num_prompt - 1))
        world.add(make_request(name, prompt_ids, max_tokens=max_tokens))


def test_what_is_promised_never_exceeds_what_there_is() -> None:
    ledger = MemoryLedger(100 * MIB)
    ledger.book(0, "weights", 60 * MIB)
    ledger.open_pages(0, MIB, 10, 40, forget)
    message = r"weights of a model: 31\.0 MiB asked, 30\.0 MiB of 100\.0 MiB are not promised yet"
    with pytest.raises(LedgerError, match=message):
        ledger.book(1, "weights", 31 * MIB)
    with pytest.raises(LedgerError, match=r"of a model \(11 pages\): 33\.0 MiB asked, 30\.0 MiB"):
        ledger.open_pages(1, 3 * MIB, 11, 11, forget)
    assert ledger.entries(1) == {} and ledger.held(0) == 60 * MIB
    # In the place of what was booked by that name.
    ledger.book(0, "weights", 90 * MIB)
    ledger.close(0)
    assert (ledger.promised_bytes, ledger.free_bytes) == (0, 100 * MIB)


def test_one_that_asks_for_ever_more_is_held_to_its_limit_to_a_page(
    open_world: Any, make_request: Any
) -> None:
    ledger = MemoryLedger(100)
    greedy, other = open_world(ledger, 0, 8, 13), open_world(ledger, 1, 8, 8)
    add(other, make_request, "z", 2, 7)
    most = 0
    for name in "abcdefghij":
        add(greedy, make_request, name, 2, 7)
        for world in (greedy, other):
            if world.scheduler.has_work:
                world.step()
        most = max(most, held(greedy))
    assert (most, held(other)) == (13, 8)
    greedy.run_until_idle()
    greedy.check_end()
    assert greedy.scheduler.num_preemptions > 0 and other.scheduler.num_preemptions == 0


def test_pages_that_hold_nothing_are_taken_first_also_from_a_guarantee(
    open_world: Any, make_request: Any
) -> None:
    ledger = MemoryLedger(20)
    idle, borrower = open_world(ledger, 0, 10, 20), open_world(ledger, 1, 10, 20)
    add(idle, make_request, "a", 8, 3)
    idle.run_until_idle()
    assert (held(idle), ledger.free_bytes) == (10, 10)
    add(borrower, make_request, "bc", 8, 3)
    borrower.run_until_idle()
    assert (held(idle), held(borrower), ledger.free_bytes) == (0, 20, 0)
    # And back, at once.
    add(idle, make_request, "d", 8, 3)
    idle.run_until_idle()
    assert (held(idle), held(borrower)) == (10, 10)


def test_cached_pages_are_taken_down_to_the_guarantee(open_world: Any, make_request: Any) -> None:
    ledger = MemoryLedger(20)
    idle = open_world(ledger, 0, 6, 20, prefix_caching=True)
    busy = open_world(ledger, 1, 6, 20, prefix_caching=True)
    add(idle, make_request, "abc", 4, 3)
    idle.run_until_idle()
    assert (held(idle), idle.scheduler.num_pages_cached) == (18, 18)
    add(busy, make_request, "defgh", 4, 3)
    busy.run_until_idle()
    assert (held(idle), held(busy), ledger.free_bytes) == (6, 14, 0)
    assert idle.scheduler.num_pages_cached == 6
    # What is left is a prefix still: of the last that ended.
    add(idle, make_request, chr(ord("c") + NUM_HEADS), 4, 3)
    idle.run_until_idle()
    assert idle.scheduler.num_cached_tokens == 3


def test_who_is_below_its_guarantee_sets_back_the_latest_of_whoever_is_furthest_above(
    open_world: Any, make_request: Any
) -> None:
    ledger = MemoryLedger(30)
    much, little = open_world(ledger, 0, 5, 30), open_world(ledger, 1, 5, 30)
    newcomer = open_world(ledger, 2, 15, 15)
    add(much, make_request, "abcd", 4, 2)
    add(little, make_request, "ef", 4, 2)
    for world in (much, little):
        world.step()
    assert (held(much), held(little), ledger.free_bytes) == (16, 8, 6)
    add(newcomer, make_request, "x", 9, 2)
    newcomer.step()
    assert (held(much), held(little), held(newcomer)) == (13, 8, 9)
    assert much.scheduler.request_ids == ("a", "b", "c", "d")
    assert (much.scheduler.num_running, much.scheduler.num_preemptions) == (3, 1)
    assert little.scheduler.num_preemptions == 0
    for world in (much, little, newcomer):
        world.run_until_idle()
        world.check_end()


def test_who_borrows_sets_back_its_own(open_world: Any, make_request: Any) -> None:
    ledger = MemoryLedger(24)
    settled = open_world(ledger, 0, 12, 12, prefix_caching=True)
    borrower = open_world(ledger, 1, 6, 24)
    add(settled, make_request, "ab", 4, 3)
    settled.run_until_idle()
    add(borrower, make_request, "cdef", 2, 5)
    borrower.run_until_idle()
    assert (held(settled), settled.scheduler.num_pages_cached, held(borrower)) == (12, 12, 12)
    assert borrower.scheduler.num_preemptions > 0 and len(borrower.reasons) == 4


def test_a_request_must_fit_what_is_guaranteed(open_world: Any, make_request: Any) -> None:
    world = open_world(MemoryLedger(100), 0, 8, 40)
    with pytest.raises(RequestError, match=r"in 9 cache pages of 1, the rank has 8; .*slice\.mem"):
        add(world, make_request, "a", 5, 5)
    add(world, make_request, "a", 5, 4)


def test_what_is_lent_and_promised_anew_is_taken_back_at_the_next_step(
    open_world: Any, make_request: Any
) -> None:
    ledger = MemoryLedger(20)
    world = open_world(ledger, 0, 6, 20)
    add(world, make_request, "abc", 4, 3)
    world.step()
    world.begin_step()
    assert held(world) == 15
    # Another thread loads a model in the middle of the step.
    ledger.book(1, "weights", 12)
    assert ledger.free_bytes == -7 and held(world) == 15
    world.end_step()
    world.begin_step()
    assert held(world) <= 8 and ledger.free_bytes >= 0 and world.scheduler.num_preemptions == 2
    world.end_step()
    world.run_until_idle()
    world.check_end()
    # And without any step, where nobody has one to take.
    ledger.book(1, "weights", 0)
    ledger.book(1, "weights", 14)
    ledger.settle()
    assert held(world) == 6 and ledger.free_bytes == 0


def test_fixed_pages_are_held_from_the_start(world_type: Any, make_request: Any) -> None:
    ledger = MemoryLedger(20)
    fixed = ledger.open_pages(0, 1, 12, 12)
    assert (fixed.num_held, fixed.num_obtainable, ledger.free_bytes) == (12, 0, 8)
    other = world_type(
        num_pages=20,
        budget=ledger.open_pages(1, 1, 4, 20, forget),
        page_size=1,
        prefix_caching=False,
    )
    add(other, make_request, "abcd", 3, 2)
    other.run_until_idle()
    assert fixed.num_held == 12 and held(other) == 8
    with pytest.raises(LedgerError, match=r"\(9 pages\) .*, it keeps its .*\(12 pages\) here"):
        ledger.resize_pages(0, 9, 9)


def test_resize_in_bytes(open_world: Any, make_request: Any) -> None:
    ledger = MemoryLedger(40)
    ledger.book(0, "weights", 5)
    hard, share = open_world(ledger, 0, 10, 10), open_world(ledger, 1, 8, 30)
    budget, other = hard.limits["budget"], share.limits["budget"]
    ledger.resize(0, 12, is_hard=True)
    assert (budget.guaranteed, budget.limit) == (7, 7)
    with pytest.raises(LedgerError, match=r"\(11 pages\) .* has room for .*\(10 pages\)"):
        ledger.resize(0, 16, is_hard=True)
    ledger.resize(1, 12, is_hard=False)
    assert (other.guaranteed, other.limit) == (12, 30)
    with pytest.raises(LedgerError, match=r"cache of a model \(29 pages\): .* asked"):
        ledger.resize(1, 29, is_hard=False)
    with pytest.raises(LedgerError, match=r"weights and working space take .*, and its cache some"):
        ledger.resize(0, 3, is_hard=True)
    ledger.book(2, "weights", 3)
    with pytest.raises(LedgerError, match=r"0\.0 MiB asked for a model, it holds 0\.0 MiB"):
        ledger.resize(2, 2, is_hard=True)
    assert ledger.promised_bytes == 5 + 7 + 12 + 3


def test_a_resize_below_what_is_in_use_is_refused(open_world: Any, make_request: Any) -> None:
    ledger = MemoryLedger(40)
    world = open_world(ledger, 0, 12, 20)
    add(world, make_request, "ab", 4, 4)
    world.step()
    assert held(world) == 8
    with pytest.raises(LedgerError, match=r"\(7 pages\) .*\(8 pages\) are in use or may soon"):
        ledger.resize_pages(0, 7, 20)
    ledger.resize_pages(0, 8, 8)
    world.run_until_idle()
    # Nothing runs, and one waits that may need so many.
    add(world, make_request, "c", 4, 4)
    with pytest.raises(LedgerError, match=r"\(6 pages\) .*\(7 pages\) are in use or"):
        ledger.resize_pages(0, 6, 6)
    world.abort("c")
    ledger.resize_pages(0, 6, 6)
    assert held(world) == 6 and ledger.free_bytes == 34
    add(world, make_request, "d", 4, 3)
    world.run_until_idle()
    world.check_end()


@pytest.mark.parametrize("is_hard", [False, True])
def test_a_resize_is_taken_back_whatever_is_in_use(
    open_world: Any, make_request: Any, is_hard: bool
) -> None:
    """As where another rank has refused it; what the tenant took meanwhile is lent to it, or taken
    back where it borrows nothing."""
    ledger = MemoryLedger(40)
    world = open_world(ledger, 0, 16, 20)
    add(world, make_request, "abcd", 4, 4)
    world.step()
    assert held(world) == 16
    before = (10, 10 if is_hard else 20)
    with pytest.raises(LedgerError, match="in use"):
        ledger.resize_pages(0, *before)
    ledger.resize_pages(0, *before, restores=True)
    budget = world.limits["budget"]
    assert (budget.guaranteed, budget.limit) == before
    assert ledger.promised_bytes == 10 and held(world) == (10 if is_hard else 16)
    world.run_until_idle()
    world.check_end()


def test_a_closed_tenant_leaves_no_circle_behind(open_world: Any, make_request: Any) -> None:
    """Its cache's memory is free as soon as its engine is dropped, whenever circles are sought."""
    ledger = MemoryLedger(40)
    world = open_world(ledger, 0, 12, 20)
    add(world, make_request, "ab", 4, 4)
    world.run_until_idle()
    scheduler = ref(world.scheduler)
    gc.disable()
    try:
        ledger.close(0)
        del world
        assert scheduler() is None
    finally:
        gc.enable()
    assert ledger.free_bytes == 40
