"""A generation's answer over HTTP, streamed or whole."""

from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from moe_serve.edge.bodies import GenerationBody
from moe_serve.edge.disconnect import until_disconnect
from moe_serve.edge.generation import Generation
from moe_serve.edge.responses import Envelope, Shape, WholeChoice, usage_object
from moe_serve.edge.streaming import ChunkWriter, EventStreamResponse, stream_events


async def answer(
    request: Request, body: GenerationBody, generation: Generation, shape: Shape, envelope: Envelope
) -> Response:
    """Run the generation for this request; it ends when the client leaves.

    Raises:
        OverloadedError, EngineDeadError: before anything has been sent.
        ClientDisconnect: nobody waits for the answer any more.
    """
    if not body.stream:
        whole = _whole(generation, shape, envelope)
        return json_response(await until_disconnect(request.receive, whole))
    writer = ChunkWriter(shape, envelope, body.includes_usage)
    events = stream_events(generation, writer)

    async def begin() -> bytes:
        return await anext(events)

    first = await until_disconnect(request.receive, begin())
    return EventStreamResponse(first, events)


def json_response(content: dict[str, Any], status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _whole(generation: Generation, shape: Shape, envelope: Envelope) -> dict[str, Any]:
    choices: dict[int, WholeChoice] = {}
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            choices.setdefault(delta.index, WholeChoice(delta.index)).add(delta)
    entries = [shape.whole(choices[index]) for index in sorted(choices)]
    return envelope.wrap(shape.object_name, entries, usage=usage_object(generation.usage))
