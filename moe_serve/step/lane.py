"""An engine in a thread of its own, on processors of its own, beside a rank's serving loop.

For a model that is whole on one rank and has a part of the device to itself. Only its kernels run
beside the others': Python between them takes turns with the serving loop's.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from moe_devices.partition import Partition

from moe_serve.errors import RequestError
from moe_serve.messages import RankStats
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.refusals import refusal
from moe_serve.types import Request, TokenEvent

_log = logging.getLogger(__name__)
_END_SECONDS = 10.0


class Lane:
    """All methods may be called from any thread; the engine belongs to the lane from now on.

    Where the engine raises, its live requests end with that error, and so does each later one.

    Args:
        name: of the model, for logs and errors.
    """

    def __init__(self, engine: RankEngine, partition: Partition, name: str) -> None:
        self._engine = engine
        self._partition = partition
        self._name = name
        self._stats = engine.stats()
        self._seconds = 0.0
        self._changed = threading.Condition()
        self._commands: list[Request | str] = []
        self._events: list[TokenEvent] = []
        # Tokens that each live request has had.
        self._live: dict[str, int] = {}
        self._end = ""
        self._gives_up_at = math.inf
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name=f"lane {name}", daemon=True)
        self._thread.start()

    @property
    def descriptor(self) -> int:
        """Readable while `take_events` has something; until `close`."""
        return self._descriptor

    @property
    def error(self) -> str:
        """Why it computes nothing any more; empty while it does."""
        return self._end

    @property
    def seconds(self) -> float:
        """Spent in steps."""
        return self._seconds

    def submit(self, request: Request) -> None:
        """Queue a request; where it is refused, its only event says so."""
        with self._changed:
            self._live[request.request_id] = 0
            if self._end:
                self._end_all(self._end)
            else:
                self._command(request)

    def abort(self, request_id: str) -> None:
        """End a request early: its last event follows. Nothing, if it has ended."""
        with self._changed:
            if request_id in self._live:
                self._command(request_id)

    def take_events(self) -> list[TokenEvent]:
        """What has come since the last time."""
        with self._changed:
            with suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)
            events, self._events = self._events, []
        return events

    def stats(self) -> RankStats:
        """The engine's, no older than the events taken so far."""
        return self._stats

    def stop(self) -> None:
        """Begin no further step; live requests end. It never waits."""
        with self._changed:
            self._stop(f"model {self._name} is being taken away")
            self._gives_up_at = min(self._gives_up_at, time.monotonic() + _END_SECONDS)

    @property
    def has_stopped(self) -> bool:
        """Whether `close` would not wait, after `stop`."""
        return not self._thread.is_alive() or time.monotonic() >= self._gives_up_at

    def close(self) -> list[TokenEvent]:
        """Stop after the step that is under way -> the events left, one to end each live request.

        A step that takes longer than 10 seconds is left behind; its events are lost.
        """
        self.stop()
        self._thread.join(max(0.0, self._gives_up_at - time.monotonic()))
        if self._thread.is_alive():
            _log.warning("lane %s: a step takes longer than %g s", self._name, _END_SECONDS)
        events = self.take_events()
        os.close(self._descriptor)
        return events

    def _run(self) -> None:
        try:
            with self._partition.use():
                self._serve()
        except Exception as error:
            _log.exception("lane %s cannot go on", self._name)
            with self._changed:
                self._stop(f"model {self._name}: {type(error).__name__}: {error}")

    def _serve(self) -> None:
        while not self._end:
            for command in self._next_commands():
                self._publish(self._obey(command))
            if self._engine.has_work:
                begun = time.perf_counter()
                events = self._engine.step()
                self._seconds += time.perf_counter() - begun
                self._publish(events)
        self._engine.abort_all()

    def _next_commands(self) -> Sequence[Request | str]:
        """Sleeps while there is nothing to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._commands or self._end or self._engine.has_work)
            commands, self._commands = self._commands, []
        return commands

    def _obey(self, command: Request | str) -> list[TokenEvent]:
        if isinstance(command, str):
            event = self._engine.abort(command)
            return [] if event is None else [event]
        try:
            self._engine.add(command)
        except RequestError as error:
            return [refusal(command.request_id, error)]
        return []

    def _publish(self, events: Sequence[TokenEvent]) -> None:
        """Those of live requests; with a request's end come its counts."""
        stats = self._engine.stats()
        with self._changed:
            self._stats = stats
            live = [event for event in events if event.request_id in self._live]
            for event in live:
                self._live[event.request_id] = event.index + 1
                if event.finish_reason is not None:
                    self._live.pop(event.request_id)
            self._show(live)

    # Of these, the caller holds the lock.

    def _command(self, command: Request | str) -> None:
        self._commands.append(command)
        self._changed.notify()

    def _stop(self, reason: str) -> None:
        self._end = self._end or reason
        self._changed.notify()
        self._end_all(self._end)

    def _end_all(self, reason: str) -> None:
        self._show([refusal(name, reason, num) for name, num in self._live.items()])
        self._live.clear()

    def _show(self, events: Sequence[TokenEvent]) -> None:
        if events:
            self._events += events
            os.eventfd_write(self._descriptor, 1)
