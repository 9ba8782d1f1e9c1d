"""Engines and tenants that write down where a rank's time goes while it serves several models."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from moe_comm.header import StepHeader

from moe_serve.bench.slices_job import RankLog
from moe_serve.messages import RankStats
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.tenants import Tenant, Tenants
from moe_serve.step.turns import Turn
from moe_serve.types import Request, TokenEvent

Clock = Callable[[], float]


class RecordedEngine:
    """A RankEngine whose steps are timed.

    Args:
        after_step: called behind each step.
    """

    def __init__(
        self,
        tenant: int,
        engine: RankEngine,
        log: RankLog,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self._tenant = tenant
        self._engine = engine
        self._log = log
        self._after_step = after_step

    @property
    def has_work(self) -> bool:
        return self._engine.has_work

    @property
    def descriptors(self) -> Sequence[int]:
        return self._engine.descriptors

    def check(self, request: Request) -> None:
        self._engine.check(request)

    def add(self, request: Request) -> None:
        self._engine.add(request)

    def give_back(self, request: Request, reason: str) -> None:
        self._engine.give_back(request, reason)

    def abort(self, request_id: str) -> TokenEvent | None:
        return self._engine.abort(request_id)

    def poll(self) -> bool:
        return self._engine.poll()

    def abort_all(self) -> None:
        self._engine.abort_all()

    def step(self, max_seconds: float | None = None) -> list[TokenEvent]:
        begun = time.perf_counter()
        events = self._engine.step(max_seconds)
        log = self._log
        log.step_ends.append(time.perf_counter())
        log.step_begins.append(begun)
        log.step_tenants.append(self._tenant)
        if self._after_step is not None:
            self._after_step()
        return events

    def stats(self) -> RankStats:
        return self._engine.stats()


def recorded(tenant: Tenant, log: RankLog, after_step: Callable[[], None] | None = None) -> Tenant:
    """The same tenant with its steps timed, where it is on this rank."""
    if tenant.engine is None:
        return tenant
    return replace(tenant, engine=RecordedEngine(tenant.number, tenant.engine, log, after_step))


class RecordedTenants(Tenants):
    """All that is done here but steps is taking turns: asking who has work, saying and hearing it,
    choosing, and charging. Between saying and hearing it lies the step header."""

    def __init__(
        self, plan_rank: int, max_step: float, tenants: Iterable[Tenant], log: RankLog
    ) -> None:
        self._log = log
        self._said_at = time.perf_counter()
        super().__init__(plan_rank, max_step, tenants)

    def wants(self) -> tuple[bool, frozenset[int]]:
        begun = time.perf_counter()
        found = super().wants()
        self._log.turns_seconds += time.perf_counter() - begun
        return found

    def tell_time(self) -> int:
        """As Tenants has it; the last thing that is asked for a header."""
        begun = time.perf_counter()
        found = super().tell_time()
        self._said_at = time.perf_counter()
        self._log.turns_seconds += self._said_at - begun
        return found

    def poll(self) -> bool:
        begun = time.perf_counter()
        found = super().poll()
        self._log.turns_seconds += time.perf_counter() - begun
        return found

    def lane_events(self) -> list[TokenEvent]:
        begun = time.perf_counter()
        found = super().lane_events()
        self._log.turns_seconds += time.perf_counter() - begun
        return found

    def next(self, header: StepHeader) -> Turn | None:
        begun = time.perf_counter()
        self._log.header_seconds += begun - self._said_at
        found = self._next(header)
        self._log.turns_seconds += time.perf_counter() - begun
        return found

    def take(self, turn: Turn) -> Iterator[list[TokenEvent]]:
        log = self._log
        steps = super().take(turn)
        while True:
            begun, num_steps = time.perf_counter(), len(log.step_ends)
            events = next(steps, None)
            taken = time.perf_counter() - begun
            if len(log.step_ends) > num_steps:
                taken -= log.step_ends[-1] - log.step_begins[-1]
            log.turns_seconds += taken
            if events is None:
                return
            yield events

    def _next(self, header: StepHeader) -> Turn | None:
        return super().next(header)


class TenantsInTurn(RecordedTenants):
    """Without shares, what an engine without slices would do with several models: whoever has work
    has one step in turn, and nothing bounds it but scheduler.max_tokens_per_step."""

    _last = -1

    def _next(self, header: StepHeader) -> Turn | None:
        later = (tenant for tenant in sorted(header.turns) if tenant > self._last)
        tenant = next(chain(later, sorted(header.turns)), None)
        if tenant is None:
            return None
        self._last = tenant
        return Turn(tenant, None, 0.0)
