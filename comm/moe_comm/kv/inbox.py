"""Events on their way from the endpoint's thread to the engine's, with a bound on their bytes."""

import asyncio
import socket
import threading
from collections import deque

from moe_comm.kv.block import parts_bytes
from moe_comm.kv.events import KvEvent, Landed


class Inbox:
    """`put` and `has_room` belong to the endpoint's thread, the rest to the engine's.

    Args:
        limit: bytes of landed KV that may wait to be drained.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._loop = loop
        self._limit = limit
        self._events: deque[KvEvent] = deque()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._room = asyncio.Event()
        self._room.set()
        self._signal, self._waker = socket.socketpair()
        self._signal.setblocking(False)
        self._waker.setblocking(False)

    def put(self, event: KvEvent) -> None:
        with self._lock:
            if not self._events:
                self._waker.send(b"\0")
            self._events.append(event)
            self._num_bytes += landed_bytes(event)
            if self._num_bytes >= self._limit:
                self._room.clear()

    async def has_room(self) -> None:
        await self._room.wait()

    def drain(self) -> list[KvEvent]:
        with self._lock:
            if not self._events:
                return []
            self._signal.recv(1)
            events = list(self._events)
            self._events.clear()
            was_full, self._num_bytes = self._num_bytes >= self._limit, 0
        if was_full and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._room.set)
        return events

    def fileno(self) -> int:
        """Readable while events wait."""
        return self._signal.fileno()

    def close(self) -> None:
        self._signal.close()
        self._waker.close()


def landed_bytes(event: KvEvent) -> int:
    return parts_bytes(event.parts) if isinstance(event, Landed) else 0
