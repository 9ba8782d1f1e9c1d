"""Proof that the checks of the random lives see what they are there to see."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import Phase

from moe_serve.errors import OverloadedError
from moe_serve.schedule import page_cache
from moe_serve.schedule.pages import PagePool
from moe_serve.schedule.prefix_tree import Block, Node, PrefixTree
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.schedule.sequence import Sequence
from moe_serve.types import TokenEvent


class SharingPool(PagePool):
    """Hands out, now and then, a page that somebody holds."""

    num_allocated = 0

    def allocate(self) -> int:
        self.num_allocated += 1
        held = [page for page in range(self.num_pages) if self.references(page)]
        if self.num_allocated % 5 or not held:
            return super().allocate()
        self.acquire(held[-1])
        return held[-1]


class LeakingPool(PagePool):
    """Forgets to put the last page back."""

    def release(self, page_id: int) -> int:
        left = super().release(page_id)
        if left == 0 and page_id == self.num_pages - 1:
            self._free.pop()
        return left


class GreedyTree(PrefixTree):
    """Matches one page too many."""

    def match(self, tenant: int, blocks: Iterable[Block]) -> list[Node]:
        wanted = list(blocks)
        nodes = super().match(tenant, wanted)
        last = nodes[-1] if nodes else self.root(tenant)
        if len(nodes) < len(wanted):
            nodes.extend(list(last.children.values())[:1])
        return nodes


class TenantBlindTree(PrefixTree):
    """Gives one tenant's pages to another."""

    def root(self, tenant: int) -> Node:
        return super().root(0)


class ForgetfulTree(PrefixTree):
    """Does not take a page that is used again out of the line for eviction."""

    def acquire(self, node: Node) -> None:
        self._pool.acquire(node.page_id)


class HastyCache(page_cache.PageCache):
    """Leaves not even the last token to compute."""

    def num_shareable(self, sequence: Sequence) -> int:
        return len(sequence.token_ids) // self.page_size


class EarlyCache(page_cache.PageCache):
    """Puts a page into the tree before it is full of computed tokens."""

    def commit(self, sequence: Sequence) -> None:
        size, num_tokens = self.page_size, len(sequence.token_ids)
        while self.prefix_caching and (sequence.num_committed + 1) * size <= num_tokens:
            self._commit_page(sequence)


class ForgettingScheduler(Scheduler):
    """Loses the newest token of a preempted sequence."""

    def _preempt_latest(self) -> None:
        super()._preempt_latest()
        sequence = next(iter(self._waiting.values()))
        if sequence.num_generated:
            sequence.token_ids.pop()


class DeafScheduler(Scheduler):
    """Lets an aborted request run on."""

    def abort(self, request_id: str) -> TokenEvent | None:
        sequence = self._running.get(request_id)
        aborted = super().abort(request_id)
        if sequence is not None:
            self._waiting[request_id] = Sequence(sequence.request)
        return aborted


class UnfairScheduler(Scheduler):
    """Preempts the oldest sequence instead of the latest."""

    def _preempt_latest(self) -> None:
        first = next(iter(self._running))
        self._running[first] = self._running.pop(first)
        super()._preempt_latest()


@pytest.mark.parametrize(
    ("room", "name", "fault", "seen"),
    [
        ("page_cache", "PagePool", SharingPool, "a page is shared by mistake|the gauge"),
        ("page_cache", "PagePool", LeakingPool, "a page is lost|pages are not given back"),
        ("page_cache", "PrefixTree", GreedyTree, "reads a page with foreign content"),
        ("page_cache", "PrefixTree", TenantBlindTree, "reads a page with foreign content|the tree"),
        ("page_cache", "PrefixTree", ForgetfulTree, "the gauge of used pages is wrong"),
        ("scheduler", "PageCache", HastyCache, "an empty chunk"),
        ("scheduler", "PageCache", EarlyCache, "the tree holds a page of other content"),
        ("", "", ForgettingScheduler, "other tokens than its own|sampled from the wrong token"),
        # What runs on after its end also takes a living one's place.
        ("", "", DeafScheduler, "r[0-9]+ is computed after its end|[0-9]+ requests run or wait"),
        ("", "", UnfairScheduler, "the oldest was preempted"),
    ],
)
def test_checks_see_planted_fault(
    room: str,
    name: str,
    fault: type[Any],
    seen: str,
    run_lives: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if room:
        monkeypatch.setattr(f"moe_serve.schedule.{room}.{name}", fault)
    # Generated only: shrinking would find the smallest failure, and any is enough here.
    phases = [Phase.generate]
    with pytest.raises((AssertionError, OverloadedError), match=f"^(?:{seen})"):
        run_lives(
            Scheduler if room else fault, max_examples=300, stateful_step_count=30, phases=phases
        )
