"""Whose turn it is: ranks that agree on headers alone, with clocks and loads of their own."""

import random
from collections.abc import Callable

import pytest
from moe_comm.header import StepHeader

from moe_serve.messages import ALL_RANKS
from moe_serve.step.turns import ONE_RANK_TENANTS, GroupTurns, RankTurns, Turn

STEP = 0.004


class Rank:
    """One rank on a clock of the test's: what it would do in each turn takes its time."""

    def __init__(self, number: int, offset: float) -> None:
        self.number = number
        self.now = offset
        self.group = GroupTurns(STEP, lambda: self.now)
        self.own = RankTurns(STEP, lambda: self.now)
        self.own_tenants: list[int] = []
        self.used: dict[int, float] = {}

    def open(self, tenant: int, rank: int, share: float, *, is_hard: bool = False) -> None:
        self.group.open(tenant, rank, share, is_hard=is_hard)
        if rank == self.number:
            self.own.open(tenant, share, is_hard=is_hard)
            self.own_tenants.append(tenant)

    def wants(self, gangs: frozenset[int]) -> frozenset[int]:
        common = {ONE_RANK_TENANTS} if self.own.may_run(self.own_tenants) else set()
        return gangs.union(self.own_tenants, common)

    def take(self, turn: Turn, seconds: Callable[[], float]) -> None:
        if turn.tenant != ONE_RANK_TENANTS:
            self._spend(turn.tenant, seconds())
            return
        ends, last = self.now + turn.seconds, 0.0
        while self.now + last / 2 < ends:
            own = self.own.next(self.own_tenants, is_bound=True)
            if own is None:
                break
            last = seconds() / 2
            self._spend(own.tenant, last)
        self.own.end()

    def _spend(self, tenant: int, seconds: float) -> None:
        self.now += seconds
        self.used[tenant] = self.used.get(tenant, 0.0) + seconds


def agree(ranks: list[Rank], gangs: frozenset[int]) -> StepHeader:
    """What the ranks' headers come to; then all go on at the same moment."""
    turns = [rank.wants(gangs) for rank in ranks]
    clock = max(rank.group.tell() for rank in ranks)
    for rank in ranks:
        rank.now += (clock - rank.group.now) / 1e9
    return StepHeader(work=True, wake=0, plan_epoch=0, clock=clock, turns=frozenset().union(*turns))


def run(ranks: list[Rank], gangs: frozenset[int], seconds: float) -> list[int | None]:
    """Who had which turn."""
    generators = [random.Random(rank.number) for rank in ranks]
    ends = ranks[0].now + seconds
    found: list[int | None] = []
    while ranks[0].now < ends:
        header = agree(ranks, gangs)
        turns = [rank.group.next(header) for rank in ranks]
        assert all(turn == turns[0] for turn in turns), "the ranks chose differently"
        turn = turns[0]
        found.append(turn.tenant if turn else None)
        for rank, generator in zip(ranks, generators, strict=True):
            if turn is None:
                rank.now += min(rank.group.seconds_to_wait(), 0.002)
            else:
                rank.take(turn, lambda each=generator: each.uniform(0.25, 1.0) * STEP)
    return found


def pair() -> list[Rank]:
    return [Rank(0, 5.0), Rank(1, 700.0)]


def test_gangs_are_charged_with_the_slowest_ranks_time() -> None:
    ranks = pair()
    for rank in ranks:
        for tenant, share in ((0, 0.05), (1, 0.25), (2, 0.7)):
            rank.open(tenant, ALL_RANKS, share)
    run(ranks, frozenset((0, 1, 2)), 8.0)
    for rank in ranks:
        total = sum(rank.group.used(tenant) for tenant in range(3))
        for tenant, share in ((0, 0.05), (1, 0.25), (2, 0.7)):
            # More than its own steps took here: the other rank's were longer now and then.
            assert rank.group.used(tenant) > rank.used[tenant]
            assert rank.group.used(tenant) / total == pytest.approx(share, abs=0.005)


def test_a_gang_and_tenants_of_one_rank_each_keep_their_shares() -> None:
    ranks = pair()
    for rank in ranks:
        rank.open(0, ALL_RANKS, 0.3)
        rank.open(1, 0, 0.2)
        rank.open(2, 0, 0.5)
        rank.open(3, 1, 0.4)
    begun = [rank.now for rank in ranks]
    run(ranks, frozenset((0,)), 8.0)
    passed = ranks[0].now - begun[0]
    assert ranks[0].group.used(0) / passed == pytest.approx(0.3, abs=0.01)
    # Short of what they ask for by what ranks wait for each other at the ends of turns.
    assert ranks[0].used[1] / passed == pytest.approx(0.2, abs=0.02)
    assert ranks[0].used[2] / passed == pytest.approx(0.5, abs=0.05)
    assert ranks[0].used[1] / ranks[0].used[2] == pytest.approx(2 / 5, abs=0.01)
    # What rank 1 leaves idle beside the gang its only other tenant gets.
    assert ranks[1].used[3] / passed > 0.6


def test_what_tenants_without_work_would_ask_for_on_one_rank_counts_for_nothing() -> None:
    ranks = pair()
    for rank in ranks:
        rank.open(0, ALL_RANKS, 0.2)
        rank.open(1, 0, 0.3)
        rank.open(2, 0, 0.5)
        rank.open(3, 1, 0.1)
    ranks[0].own_tenants.remove(2)
    begun = ranks[0].now
    run(ranks, frozenset((0,)), 8.0)
    passed = ranks[0].now - begun
    # Idle time is lent in proportion: 20 to 30.
    assert ranks[0].group.used(0) / passed == pytest.approx(0.4, abs=0.01)
    assert ranks[0].used[1] / passed == pytest.approx(0.6, abs=0.05)
    ranks[0].own_tenants.append(2)
    begun, before = ranks[0].now, ranks[0].group.used(0)
    run(ranks, frozenset((0,)), 8.0)
    passed = ranks[0].now - begun
    assert (ranks[0].group.used(0) - before) / passed == pytest.approx(0.2, abs=0.01)


def test_a_hard_tenant_of_one_rank_keeps_to_its_share_of_all_time() -> None:
    ranks = pair()
    for rank in ranks:
        rank.open(0, ALL_RANKS, 0.3)
        rank.open(1, 0, 0.2, is_hard=True)
    begun = ranks[0].now
    turns = run(ranks, frozenset(), 4.0)
    passed = ranks[0].now - begun
    assert ranks[0].used[1] / passed == pytest.approx(0.2, abs=0.01)
    assert None in turns, "nobody may run for most of the time"


def test_who_is_alone_is_not_bound_until_somebody_comes() -> None:
    (rank,) = [Rank(0, 0.0)]
    rank.open(0, ALL_RANKS, 0.5)
    rank.open(1, ALL_RANKS, 0.5)
    header = agree([rank], frozenset((0,)))
    alone = rank.group.next(header)
    assert alone is not None and alone.max_seconds is None
    both = rank.group.next(agree([rank], frozenset((0, 1))))
    assert both is not None and both.max_seconds == STEP
    # The other one may come again at any time.
    rank.now += 0.5
    after = rank.group.next(agree([rank], frozenset((0,))))
    assert after is not None and after.max_seconds == STEP


def test_tenants_that_leave_take_their_accounts_along() -> None:
    (rank,) = [Rank(0, 0.0)]
    rank.open(0, ALL_RANKS, 0.5)
    rank.open(1, 0, 0.5)
    assert rank.group.next(agree([rank], frozenset((0,)))) is not None
    rank.group.close(0, ALL_RANKS)
    rank.group.close(1, 0)
    rank.own.close(1)
    rank.own_tenants.clear()
    assert rank.group.next(agree([rank], frozenset())) is None
