"""The serving loop when ranks are lost or come back: what it tells, and when it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from moe_comm.local import LocalDispatcher
from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_placement.plan import Plan, PoolPlan

from moe_serve.messages import Command, MembershipNews, RankStats, Report
from moe_serve.step.changes import no_changes
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.expert_moves import ExpertMover
from moe_serve.step.move_budget import MoveLimits
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.tenants import Tenants
from moe_serve.step.worker import Worker

NEWS = MembershipNews(1, (2,))


class IdleEngine:
    """Of a rank that nobody asks anything."""

    has_work = False
    descriptors = ()

    def poll(self) -> bool:
        return False

    def stats(self) -> RankStats:
        return RankStats(plan_rank=0)

    def abort_all(self) -> None: ...


class Line:
    """To a front end that calls late.

    Args:
        commands: that come one look after the other; an empty look is one without.
    """

    def __init__(self, *commands: Sequence[Command]) -> None:
        self._commands = list(commands)
        self._is_called = False
        self.reports: list[Report] = []

    def receive(self) -> Sequence[Command]:
        commands = self._commands.pop(0) if self._commands else ()
        self._is_called |= bool(commands)
        return commands

    def wait(self, seconds: float, descriptors: Sequence[int]) -> None: ...

    def send(self, report: Report) -> bool:
        if self._is_called:
            self.reports.append(report)
        return self._is_called


class World:
    """Another rank that agrees to all; a header, or the end, is broken off where the test says."""

    size = 2

    def __init__(self, *, breaks_headers: int = 0, breaks_ends: int = 0) -> None:
        self.headers = 0
        self.ends = 0
        self._breaks_headers = breaks_headers
        self._breaks_ends = breaks_ends

    def max_reduce(self, words: Any) -> Any:
        self.headers += 1
        if self.headers <= self._breaks_headers:
            raise PeerLostError("a rank was lost")
        return np.asarray(words)

    def part(self) -> None:
        self.ends += 1
        if self.ends <= self._breaks_ends:
            raise PeerLostError("a rank was lost as all were to end")


@dataclass
class Regrouping:
    """Attributes:
    asked: whether the rank said each time that it was told to stop.
    """

    world: World
    others_stop: bool = False

    def __post_init__(self) -> None:
        self.asked: list[bool] = []

    def __call__(self, stops: bool) -> Any:
        self.asked.append(stops)
        return Regrouped(cast(Exchange, self.world), NEWS, stops or self.others_stop)


@dataclass(frozen=True)
class Regrouped:
    exchange: Exchange
    news: MembershipNews
    stops: bool


def run(line: Line, world: World, regroup: Regrouping) -> None:
    tenants = Tenants.of_one(0, cast(RankEngine, IdleEngine()))
    plan = Plan("dense", 0, (PoolPlan("host", "cpu", (0,)),), {})
    limits = MoveLimits(bytes_per_step=1, expert_bytes=1, room=1)
    mover = ExpertMover(0, plan, {}, None, LocalDispatcher({}), lambda plan: {}, limits)
    Worker(
        0,
        tenants,
        no_changes(0, tenants),
        cast(Exchange, world),
        line,
        lambda: None,
        ExpertCounter((), 0),
        mover,
        regroup,
        world.part,
    ).run()


def test_news_are_kept_until_somebody_hears_them_and_told_once() -> None:
    """And with the first call come numbers, although the rank sleeps on."""
    world = World(breaks_headers=1)
    greeting = [Command(wake=0)]
    line = Line((), (), (), (), greeting, (), [Command(wake=1)], [Command(wake=2, stop=True)])
    run(line, world, Regrouping(world))
    assert [report.news for report in line.reports if report.news] == [NEWS]
    assert line.reports[0].news == NEWS and line.reports[0].stats is not None
    assert line.reports[-1].is_last


def test_an_end_that_is_broken_off_is_come_to_again() -> None:
    world = World(breaks_ends=2)
    line = Line([Command(wake=1, stop=True)])
    regroup = Regrouping(world)
    run(line, world, regroup)
    assert world.ends == 3
    # What was told once holds, and the others may not have been told.
    assert regroup.asked == [True, True]


def test_one_that_comes_back_stops_with_the_others() -> None:
    world = World(breaks_headers=1)
    regroup = Regrouping(world, others_stop=True)
    run(Line(), world, regroup)
    assert regroup.asked == [False]
    assert world.ends == 1 and world.headers == 2
