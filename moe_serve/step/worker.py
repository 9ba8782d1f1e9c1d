"""The serving loop of one rank: commands in, steps in lock-step with the other ranks, reports out.

Ranks sleep together. A wake number comes with every command that brings work, and the front end
sends it to all ranks. Each step header carries the newest number any rank has seen; all ranks
sleep when the header says no work and the same number as the header before it, which all of them
know, and each wakes when a newer number reaches it. A sleeping rank that gets work from another
rank's keys and values asks the front end for a newer number.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from moe_comm.header import StepHeader, agree
from moe_comm.transport.exchange import Exchange, PeerLostError

from moe_serve.errors import RequestError
from moe_serve.messages import Command, MembershipNews, Report, TenantNews
from moe_serve.step.changes import TenantChanges
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.expert_moves import ExpertMover
from moe_serve.step.link import Link
from moe_serve.step.refusals import refusal
from moe_serve.step.tenants import Tenants
from moe_serve.step.turns import ONE_RANK_TENANTS, Turn
from moe_serve.types import Request, TokenEvent

_SECONDS_BETWEEN_STATS = 0.5
_SECONDS_BETWEEN_LOOKS = 1.0
# While a model is loaded beside those that sleep.
_SECONDS_BETWEEN_LOOKS_AT_LOADING = 0.02
# Somebody may have a turn again at any time on another rank.
_LONGEST_PAUSE = 0.002


class Regrouped(Protocol):
    """How the ranks that are there go on without others, or with more; see `survive/regroup.py`."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def news(self) -> MembershipNews: ...

    @property
    def stops(self) -> bool:
        """A rank was told to stop: all are to."""
        ...


class Worker:
    """
    Args:
        load, mover: of the main tenant, whose experts may move.
        watch: called now and then; raises where the rank must not go on.
        regroup: called where ranks are lost or come back, with whether this rank was told to stop;
            raises where there is no going on.
        part: called when the ranks of this EP group have agreed to stop; returns when all ranks
            of the world have, and raises PeerLostError where one is lost or comes back before.
    """

    def __init__(
        self,
        plan_rank: int,
        tenants: Tenants,
        changes: TenantChanges,
        exchange: Exchange,
        link: Link,
        watch: Callable[[], None],
        load: ExpertCounter,
        mover: ExpertMover,
        regroup: Callable[[bool], Regrouped] | None = None,
        part: Callable[[], None] = lambda: None,
        main_tenant: int = 0,
    ) -> None:
        self._plan_rank = plan_rank
        self._tenants = tenants
        self._changes = changes
        self._exchange = exchange
        self._link = link
        self._watch = watch
        self._load = load
        self._mover = mover
        self._regroup = regroup
        self._part = part
        self._main_tenant = main_tenant
        self._news: MembershipNews | None = None
        self._is_heard = False
        self._refusal = ""
        self._wake = 0
        self._stop = False
        self._told = self._readiness
        self._next_stats = 0.0

    def run(self, *, comes_back: bool = False) -> None:
        """Serve until the ranks agree to stop.

        Args:
            comes_back: the other ranks serve, and this one has not met them yet.

        Raises:
            PeerLostError: ranks are lost, and there is no going on without them.
        """
        if comes_back and self._regroup is not None:
            self._follow(self._regroup(self._stop))
        while True:
            try:
                self._serve()
                return self._part()
            except PeerLostError:
                if self._regroup is None:
                    raise
            self._follow(self._regroup(self._stop))

    def close(self) -> None:
        """End what runs in other threads."""
        self._tenants.close_lanes()

    def _follow(self, regrouped: Regrouped) -> None:
        self._exchange, self._news = regrouped.exchange, regrouped.news
        self._refusal = regrouped.news.refusal
        self._stop |= regrouped.stops
        if self._refusal:
            self._tenants.abort_all()
        if self._plan_rank == 0:
            self._send(Report(plan_rank=0))

    def _serve(self) -> None:
        agreed_wake = -1
        while True:
            self._take(self._link.receive())
            self._tenants.poll()
            self._report_lanes()
            header = agree(self._exchange, self._header())
            if header.stop:
                self._stop = True
                self._report([], force=True, is_last=True)
                return
            self._follow_header(header)
            turn = self._tenants.next(header)
            if turn is not None:
                self._take_turn(turn)
            elif header.work:
                pause = min(self._tenants.seconds_to_wait(), _LONGEST_PAUSE)
                self._link.wait(pause, self._tenants.descriptors)
            elif header.wake == agreed_wake:
                self._report([], force=True)
                self._sleep_until_after(header.wake)
            agreed_wake = header.wake

    def _follow_header(self, header: StepHeader) -> None:
        news = self._changes.follow(header.ready_change)
        if news is not None and self._main_tenant not in self._tenants:
            # Its weights go with them.
            self._load, self._mover = ExpertCounter((), 0), self._mover.without_experts()
        if self._mover.follow(header) or news is not None:
            self._report([], force=True, tenant_news=news)
        self._changes.rest()

    def _take_turn(self, turn: Turn) -> None:
        for events in self._tenants.take(turn):
            if turn.tenant == self._main_tenant:
                self._load.end_step()
            self._mover.advance()
            self._report(events)
            if turn.tenant == ONE_RANK_TENANTS:
                self._take(self._link.receive())

    def _header(self) -> StepHeader:
        self._told = self._readiness
        ready_epoch, given_up_epoch, ready_change = self._told
        has_work, turns = self._tenants.wants()
        return StepHeader(
            work=has_work,
            wake=self._wake,
            plan_epoch=self._mover.epoch,
            stop=self._stop,
            ready_epoch=ready_epoch,
            given_up_epoch=given_up_epoch,
            clock=self._tenants.tell_time(),
            ready_change=ready_change,
            turns=turns,
        )

    @property
    def _readiness(self) -> tuple[int, int, int]:
        """What the other ranks may wait for."""
        mover = self._mover
        return mover.ready_epoch, mover.given_up_epoch, self._changes.ready_number

    def _sleep_until_after(self, wake: int) -> None:
        has_asked = False
        while self._wake <= wake:
            self._watch()
            self._mover.advance()
            self._changes.rest()
            is_wanted = self._readiness != self._told
            seconds = 0.0 if is_wanted and not has_asked else self._seconds_to_look()
            self._link.wait(seconds, self._tenants.descriptors)
            self._take(self._link.receive())
            if self._tenants.poll():
                self._report([], force=True)
            self._report_lanes()
            if (self._tenants.has_work or is_wanted) and not has_asked:
                self._link.send(Report(plan_rank=self._plan_rank, asleep_since=wake))
                has_asked = True

    def _seconds_to_look(self) -> float:
        if self._mover.is_loading:
            return 0.0
        loading = self._changes.is_preparing
        return _SECONDS_BETWEEN_LOOKS_AT_LOADING if loading else _SECONDS_BETWEEN_LOOKS

    def _take(self, commands: Sequence[Command]) -> None:
        events: list[TokenEvent] = []
        for command in commands:
            self._wake = max(self._wake, command.wake)
            self._stop |= command.stop
            if command.plan_change is not None:
                self._mover.take(command.plan_change)
            if command.tenant_change is not None:
                self._changes.take(command.tenant_change)
            events += [event for request in command.submit for event in self._add(request)]
            events += [event for name in command.abort if (event := self._tenants.abort(name))]
        # The front end may have called only now.
        if events or (commands and not self._is_heard):
            self._report(events, force=not self._is_heard)

    def _add(self, request: Request) -> list[TokenEvent]:
        if self._refusal and request.decode_rank is not None:
            self._tenants.give_back(request, self._refusal)
            return []
        if self._refusal:
            return [refusal(request.request_id, self._refusal)]
        try:
            self._tenants.add(request)
        except RequestError as error:
            return [refusal(request.request_id, error)]
        return []

    def _report_lanes(self) -> None:
        if events := self._tenants.lane_events():
            self._report(events)

    def _report(
        self,
        events: Sequence[TokenEvent],
        force: bool = False,
        is_last: bool = False,
        tenant_news: TenantNews | None = None,
    ) -> None:
        now = time.monotonic()
        stats = None
        counts = self._load.take() if force or self._load.is_window_over else None
        # With a request's end come its counts, so that nobody reads numbers older than answers.
        ended = any(event.finish_reason is not None for event in events)
        if force or ended or now >= self._next_stats:
            self._next_stats = now + _SECONDS_BETWEEN_STATS
            stats = self._mover.add_to(self._tenants.stats())
        if events or stats is not None or counts is not None:
            self._send(
                Report(
                    plan_rank=self._plan_rank,
                    events=tuple(events),
                    stats=stats,
                    expert_counts=counts,
                    is_last=is_last,
                    tenant_news=tenant_news,
                )
            )
        # After the events have left: where this raises, no token is lost.
        if stats is not None and not is_last:
            self._watch()

    def _send(self, report: Report) -> None:
        """With news, of plan rank 0, until the front end has called and can hear them."""
        news = self._news if self._plan_rank == 0 else None
        self._is_heard = self._link.send(replace(report, news=news))
        if self._is_heard:
            self._news = None
