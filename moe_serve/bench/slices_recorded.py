"""Tenants that write down where a rank's time goes while it serves several models."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from moe_comm.header import StepHeader

from moe_serve.bench.slices_job import RankLog
from moe_serve.step.tenant import Tenant
from moe_serve.step.tenants import Tenants
from moe_serve.step.turns import Turn
from moe_serve.types import TokenEvent


class RecordedTenants(Tenants):
    """Taking turns is all that is done between the end of one step and the begin of the next, but
    for the step header, requests and reports: asking who has work, saying and hearing it, choosing,
    and charging.

    Args:
        after_step: called behind each step.
    """

    def __init__(
        self,
        plan_rank: int,
        max_step: float,
        tenants: Iterable[Tenant],
        log: RankLog,
        after_step: Callable[[], None] | None = None,
    ) -> None:
        self._log = log
        self._after_step = after_step
        self._begun = self._said_at = time.perf_counter()
        super().__init__(plan_rank, max_step, tenants)

    def wants(self) -> tuple[bool, frozenset[int]]:
        """As Tenants has it; what a header begins with as far as it is about turns."""
        self._begun = time.perf_counter()
        return Tenants.wants(self)

    def tell_time(self) -> int:
        """As Tenants has it; the last thing that is asked for a header."""
        found = Tenants.tell_time(self)
        self._said_at = time.perf_counter()
        self._log.turns_seconds += self._said_at - self._begun
        return found

    def next(self, header: StepHeader) -> Turn | None:
        self._begun = time.perf_counter()
        self._log.header_seconds += self._begun - self._said_at
        turn = self._next(header)
        if turn is None:
            self._log.turns_seconds += time.perf_counter() - self._begun
        return turn

    def _take_own(self, turn: Turn) -> Iterator[list[TokenEvent]]:
        for events in super()._take_own(turn):
            yield events
            self._begun = time.perf_counter()
        self._log.turns_seconds += time.perf_counter() - self._begun

    def _next(self, header: StepHeader) -> Turn | None:
        return Tenants.next(self, header)

    def _step(self, turn: Turn) -> list[TokenEvent]:
        begun = time.perf_counter()
        events = Tenants._step(self, turn)
        ended = time.perf_counter()
        log = self._log
        log.turns_seconds += begun - self._begun
        log.step_ends.append(ended)
        log.step_begins.append(begun)
        log.step_tenants.append(turn.tenant)
        self._begun = ended
        if self._after_step is not None:
            self._after_step()
        return events


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
