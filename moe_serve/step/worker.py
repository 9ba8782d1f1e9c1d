"""The serving loop of one rank: commands in, steps in lock-step with the other ranks, reports out.

Ranks sleep together. A wake number comes with every command that brings work, and the front end
sends it to all ranks. Each step header carries the newest number any rank has seen; all ranks
sleep when the header says no work and the same number as the header before it, which all of them
know, and each wakes when a newer number reaches it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from moe_comm.header import StepHeader, agree
from moe_comm.transport.exchange import Exchange

from moe_serve.errors import OverloadedError, RequestError
from moe_serve.step.engine import Engine
from moe_serve.types import Command, Report, Request, TokenEvent

_SECONDS_BETWEEN_STATS = 0.5
_SECONDS_BETWEEN_LOOKS = 1.0


class Link(Protocol):
    """A rank's line to the front end."""

    def receive(self) -> Sequence[Command]:
        """What has come, without waiting."""
        ...

    def wait(self, seconds: float) -> None:
        """Sleep until something comes."""
        ...

    def send(self, report: Report) -> None: ...


class Worker:
    """
    Args:
        watch: called now and then; raises where the rank must not go on.
    """

    def __init__(
        self,
        plan_rank: int,
        engine: Engine,
        exchange: Exchange,
        link: Link,
        watch: Callable[[], None],
        plan_epoch: int,
    ) -> None:
        self._plan_rank = plan_rank
        self._engine = engine
        self._exchange = exchange
        self._link = link
        self._watch = watch
        self._plan_epoch = plan_epoch
        self._wake = 0
        self._stop = False
        self._next_stats = 0.0

    def run(self) -> None:
        """Serve until the ranks agree to stop."""
        agreed_wake = -1
        while True:
            self._take(self._link.receive())
            header = agree(self._exchange, self._header())
            if header.stop:
                return
            if header.work:
                self._report(self._engine.step())
            elif header.wake == agreed_wake:
                self._report([], force=True)
                self._sleep_until_after(header.wake)
            agreed_wake = header.wake

    def _header(self) -> StepHeader:
        return StepHeader(
            work=self._engine.has_work,
            wake=self._wake,
            plan_epoch=self._plan_epoch,
            tenant=0 if self._engine.has_work else -1,
            stop=self._stop,
        )

    def _sleep_until_after(self, wake: int) -> None:
        while self._wake <= wake:
            self._watch()
            self._link.wait(_SECONDS_BETWEEN_LOOKS)
            self._take(self._link.receive())

    def _take(self, commands: Sequence[Command]) -> None:
        events: list[TokenEvent] = []
        for command in commands:
            self._wake = max(self._wake, command.wake)
            self._stop |= command.stop
            events += [event for request in command.submit for event in self._add(request)]
            events += [event for name in command.abort if (event := self._engine.abort(name))]
        if events:
            self._report(events)

    def _add(self, request: Request) -> list[TokenEvent]:
        try:
            self._engine.add(request)
        except RequestError as error:
            return [_refusal(request, error)]
        return []

    def _report(self, events: Sequence[TokenEvent], force: bool = False) -> None:
        now = time.monotonic()
        stats = None
        # With a request's end come its counts, so that nobody reads numbers older than answers.
        ended = any(event.finish_reason is not None for event in events)
        if force or ended or now >= self._next_stats:
            self._watch()
            self._next_stats = now + _SECONDS_BETWEEN_STATS
            stats = self._engine.stats()
        if events or stats is not None:
            self._link.send(Report(plan_rank=self._plan_rank, events=tuple(events), stats=stats))


def _refusal(request: Request, error: RequestError) -> TokenEvent:
    return TokenEvent(
        request.request_id,
        0,
        None,
        finish_reason="error",
        error=str(error),
        error_kind="overloaded" if isinstance(error, OverloadedError) else "request",
    )
