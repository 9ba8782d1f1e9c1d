"""The served models of one rank: requests to their engines, turns to those that have work."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from math import inf
from operator import add

from moe_comm.header import StepHeader
from moe_placement.packing.turn_shares import KeptProcessors

from moe_serve.errors import PlacementError, RequestError
from moe_serve.messages import ALL_RANKS, RankStats, SliceStats
from moe_serve.step.lane import Lane
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.tenant import Tenant
from moe_serve.step.turns import ONE_RANK_TENANTS, GroupTurns, RankTurns, Turn
from moe_serve.types import Request, ServedModel, TokenEvent


class Tenants:
    """All ranks of an EP group open and close the same tenants at the same steps.

    Args:
        max_step: seconds that a step may take while others have work.
        has_slices: models may come and go, and stats tell of each.
    """

    def __init__(
        self,
        plan_rank: int,
        max_step: float,
        tenants: Iterable[Tenant],
        *,
        has_slices: bool = True,
    ) -> None:
        self._plan_rank = plan_rank
        self._has_slices = has_slices
        self._gone = RankStats(plan_rank=plan_rank)
        self._tenants: dict[int, Tenant] = {}
        self._group = GroupTurns(max_step)
        self._own = RankTurns(max_step)
        self._kept = KeptProcessors()
        self._last_events: list[TokenEvent] = []
        self._opened_at: dict[int, float] = {}
        # What is looked at before every step. By number: those that take turns on this rank, and
        # which of them are on no other; then those that other ranks may send something to.
        self._engines: dict[int, RankEngine] = {}
        self._receiving: list[RankEngine] = []
        self._on_one_rank: set[int] = set()
        # Those that had work when they were asked, and have had no step since: not asked again, at
        # the worst for a step without tokens.
        self._working: set[int] = set()
        self._lanes: list[Lane] = []
        for tenant in tenants:
            self.open(tenant)

    @staticmethod
    def of_one(plan_rank: int, engine: RankEngine) -> "Tenants":
        """A model that has the ranks to itself."""
        return Tenants(plan_rank, inf, [Tenant(number=0, engine=engine)], has_slices=False)

    def open(self, tenant: Tenant) -> None:
        self._tenants[tenant.number] = tenant
        self._opened_at[tenant.number] = time.monotonic()
        self._list_engines()
        if tenant.takes_turns:
            self._group.open(tenant.number, tenant.rank, tenant.share, is_hard=tenant.is_hard)
            if tenant.rank == self._plan_rank:
                self._own.open(tenant.number, tenant.share, is_hard=tenant.is_hard)
        else:
            self._kept.keep(tenant.number, tenant.rank, tenant.share)
        self._level_turns()

    def change_share(self, number: int, share: float, *, is_hard: bool) -> None:
        tenant = self._tenants[number]
        if (share, is_hard) == (tenant.share, tenant.is_hard):
            return
        if not tenant.takes_turns:
            raise PlacementError(
                f"model {tenant.name} has processors to itself (isolate: sm), which stay as they "
                "are while it is served; unload it and start the server with another share"
            )
        self._tenants[number] = replace(tenant, share=share, is_hard=is_hard)
        self._level_turns()

    def resize(self, number: int, num_bytes: int, *, restores: bool = False) -> ServedModel | None:
        """What a tenant serves with so many bytes here, None where that is as before; LedgerError
        where it cannot have them.

        Args:
            restores: it had so many before, and has them again whatever is in use.
        """
        tenant = self._tenants[number]
        return tenant.resize(num_bytes, tenant.is_hard, restores)

    def stop(self, number: int) -> None:
        """Have a tenant that is about to be closed begin nothing more beside the steps."""
        if (lane := self._tenants[number].lane) is not None:
            lane.stop()

    def is_running(self, number: int) -> bool:
        """Whether one that was stopped has not ended what it was at."""
        lane = self._tenants[number].lane
        return lane is not None and not lane.has_stopped

    def close(self, number: int) -> Tenant:
        """End what it still does, and give back what it holds."""
        tenant = self._tenants.pop(number)
        self._list_engines()
        if tenant.takes_turns:
            self._group.close(number, tenant.rank)
            if tenant.rank == self._plan_rank:
                self._own.close(number)
            self._level_turns()
        if tenant.engine is not None:
            tenant.engine.abort_all()
        if (engine := tenant.lane or tenant.engine) is not None:
            self._gone += engine.stats().counters
        if tenant.lane is not None:
            self._last_events += tenant.lane.close()
        tenant.close()
        return tenant

    def close_lanes(self) -> None:
        """Threads end with the serving loop."""
        for lane in self._lanes:
            lane.stop()
        for lane in self._lanes:
            lane.close()

    def __contains__(self, number: int) -> bool:
        return number in self._tenants

    @property
    def has_work(self) -> bool:
        return any(engine.has_work for engine in self._engines.values())

    def wants(self) -> tuple[bool, frozenset[int]]:
        """Whether there is work, and turns that it may be done in, as step headers say it."""
        turns = frozenset(self._ask_who_works())
        if self._on_one_rank and self._own.may_run(turns & self._on_one_rank):
            turns |= {ONE_RANK_TENANTS}
        return bool(turns), turns

    def tell_time(self) -> int:
        """The group's time, for a step header."""
        return self._group.tell()

    @property
    def descriptors(self) -> Sequence[int]:
        """Readable while `poll` or `lane_events` has something to do."""
        own = [each for engine in self._receiving for each in engine.descriptors]
        return [*own, *(lane.descriptor for lane in self._lanes)]

    def lane_events(self) -> list[TokenEvent]:
        """What tenants with processors of their own have computed since the last time."""
        if not self._lanes and not self._last_events:
            return []
        events, self._last_events = self._last_events, []
        for lane in self._lanes:
            events += lane.take_events()
        return events

    def add(self, request: Request) -> None:
        """Queue a request; RequestError or OverloadedError where it is refused."""
        tenant = self._tenants.get(request.tenant)
        if tenant is not None and tenant.lane is not None:
            tenant.lane.submit(request)
            return
        if tenant is None or tenant.engine is None:
            raise RequestError(f"model number {request.tenant} is not on rank {self._plan_rank}")
        tenant.engine.add(request)

    def give_back(self, request: Request, reason: str) -> None:
        tenant = self._tenants[request.tenant]
        assert tenant.engine is not None
        tenant.engine.give_back(request, reason)

    def abort(self, request_id: str) -> TokenEvent | None:
        """End a request early; None if there is none, or if its last event is yet to come."""
        for lane in self._lanes:
            lane.abort(request_id)
        self._working.clear()
        events = (engine.abort(request_id) for engine in self._engines.values())
        return next((event for event in events if event is not None), None)

    def abort_all(self) -> None:
        self._working.clear()
        for engine in self._engines.values():
            engine.abort_all()

    def poll(self) -> bool:
        """Whether the handover of a request has ended."""
        if not self._receiving:
            return False
        ended = [engine.poll() for engine in self._receiving]
        return any(ended)

    def next(self, header: StepHeader) -> Turn | None:
        """The turn that an agreed header begins; None where nobody may have one."""
        return self._group.next(header)

    def seconds_to_wait(self) -> float:
        """Where there is work and `next` is None: until somebody may have a turn, perhaps."""
        return self._group.seconds_to_wait()

    def take(self, turn: Turn) -> Iterable[list[TokenEvent]]:
        """The steps of a turn, each with the tokens that it gave.

        Where a step raises PeerLostError nothing has happened: the next call does the same.
        """
        return self._take_own(turn) if turn.tenant == ONE_RANK_TENANTS else (self._step(turn),)

    def stats(self) -> RankStats:
        """Of all engines here together, also of those that are gone, and of each tenant."""
        here = {
            number: engine.stats()
            for number, tenant in self._tenants.items()
            if (engine := tenant.lane or tenant.engine) is not None
        }
        total = reduce(add, here.values(), self._gone)
        if not self._has_slices:
            return total
        slices = [self._slice(number, stats) for number, stats in here.items()]
        return replace(total, slices=tuple(slices))

    def _take_own(self, turn: Turn) -> Iterator[list[TokenEvent]]:
        """Steps of the tenants that are on this rank alone."""
        ends = self._group.now + int(turn.seconds * 1e9)
        is_bound = turn.max_seconds is not None
        begun, last = self._group.now, 0
        # The other ranks wait for the end, so it had better be near the one that is due.
        while begun + last // 2 < ends:
            working = self._ask_who_works() & self._on_one_rank
            own = self._own.next(working, is_bound=is_bound)
            if own is None:
                break
            yield self._step(own)
            now = self._group.now
            begun, last = now, now - begun
        self._own.end()

    def _ask_who_works(self) -> set[int]:
        working = self._working
        for number, engine in self._engines.items():
            if number not in working and engine.has_work:
                working.add(number)
        return working

    def _list_engines(self) -> None:
        here = [each for each in self._tenants.values() if each.engine is not None]
        self._engines = {each.number: each.engine for each in here if each.engine is not None}
        self._working.clear()
        # Other ranks may send these something; what they receive by is there before the loop is.
        self._receiving = [engine for engine in self._engines.values() if engine.descriptors]
        self._on_one_rank = {each.number for each in here if each.rank != ALL_RANKS}
        self._lanes = [each.lane for each in self._tenants.values() if each.lane is not None]

    def _level_turns(self) -> None:
        """Shares of turns are of the processors that are left to those that take turns."""
        taking = [each for each in self._tenants.values() if each.takes_turns]
        asked = [(None if each.rank == ALL_RANKS else each.rank, each.share) for each in taking]
        shares = self._kept.turn_shares(asked)
        for tenant, share in zip(taking, shares, strict=True):
            self._group.change(tenant.number, tenant.rank, share, is_hard=tenant.is_hard)
            if tenant.rank == self._plan_rank:
                self._own.change(tenant.number, share, is_hard=tenant.is_hard)

    def _step(self, turn: Turn) -> list[TokenEvent]:
        self._working.discard(turn.tenant)
        return self._engines[turn.tenant].step(turn.max_seconds)

    def _slice(self, number: int, stats: RankStats) -> SliceStats:
        tenant = self._tenants[number]
        turns = self._group if tenant.rank == ALL_RANKS else self._own
        seconds = tenant.lane.seconds if tenant.lane else turns.used(number)
        return SliceStats(
            tenant=number,
            model=tenant.name,
            seconds=seconds,
            lifetime=time.monotonic() - self._opened_at[number],
            memory=tenant.memory(),
            num_waiting=stats.num_waiting,
            num_running=stats.num_running,
            num_tokens=stats.num_prompt_tokens + stats.num_generated_tokens,
            num_preemptions=stats.num_preemptions,
        )
