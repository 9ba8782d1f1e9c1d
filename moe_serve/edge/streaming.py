"""Server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moe_serve.edge.choice import Delta
from moe_serve.edge.disconnect import until_disconnect
from moe_serve.edge.errors import error_object
from moe_serve.edge.generation import Generation
from moe_serve.edge.responses import Envelope, Shape, usage_object

_DONE = b"data: [DONE]\n\n"


class ChunkWriter:
    """Deltas to the bytes of `data:` events, in OpenAI's order."""

    def __init__(self, shape: Shape, envelope: Envelope, includes_usage: bool) -> None:
        self._shape = shape
        self._envelope = envelope
        # With usage asked for, every chunk has the field, null but in the last.
        self._usage: dict[str, Any] = {"usage": None} if includes_usage else {}
        self._opened: set[int] = set()

    def write(self, delta: Delta) -> bytes:
        """The events of one delta; none where it shows nothing new."""
        pieces = [] if delta.is_empty else self._shape.pieces(delta)
        if delta.index not in self._opened:
            self._opened.add(delta.index)
            opening = self._shape.opening(delta.index)
            pieces = pieces if opening is None else [opening, *pieces]
        return b"".join(self._chunk([piece], self._usage) for piece in pieces)

    def end(self, generation: Generation) -> bytes:
        if not self._usage:
            return _DONE
        return self._chunk([], {"usage": usage_object(generation.usage)}) + _DONE

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any]) -> bytes:
        return event(self._envelope.wrap(self._shape.chunk_name, choices, **usage))


def event(content: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"


async def stream_events(generation: Generation, writer: ChunkWriter) -> AsyncGenerator[bytes, None]:
    """The answer's events; an error is raised before the first and is an event after it."""
    begun = False
    try:
        async with aclosing(generation.deltas()) as deltas:
            async for delta in deltas:
                if written := writer.write(delta):
                    begun = True
                    yield written
        yield writer.end(generation)
    except Exception as error:
        if not begun:
            raise
        yield event(error_object(error)[1])


class EventStreamResponse(Response):
    """Sends a stream whose first event is already there, so that its status is known.

    The stream is closed at once when the client leaves.
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        self.status_code = 200
        self.background = None
        self._first = first
        self._events = events
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            try:
                await until_disconnect(receive, self._send(send))
            except (ClientDisconnect, OSError):
                return

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send(_body(self._first, more=True))
        async for content in self._events:
            await send(_body(content, more=True))
        await send(_body(b"", more=False))


def _body(content: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}
