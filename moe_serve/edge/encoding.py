"""Inputs of one HTTP request to the engine, a bounded number at a time, and what it answers."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from uuid import uuid4

from moe_serve.control.requests.client import EngineClient
from moe_serve.edge.encoder_bodies import EncoderBody
from moe_serve.edge.errors import ContextLengthError, raise_failure
from moe_serve.edge.input_tokens import EncoderInput
from moe_serve.edge.lifetimes import lifetimes
from moe_serve.edge.merge import merge
from moe_serve.edge.service import Service, Tenant
from moe_serve.errors import EngineDeadError, RequestError
from moe_serve.types import Request, SamplingParams, ServedModel, TokenEvent

# A piece goes to one rank; all pieces that are under way take this many places in queues.
_INPUTS_PER_PIECE = 16
_PIECES_AT_ONCE = 8


def truncation(body: EncoderBody, model: ServedModel) -> int | None:
    """How many tokens longer inputs are cut to; None where they are not.

    Raises:
        RequestError: more than the model takes.
    """
    asked, most = body.truncate_prompt_tokens, model.context_length
    if asked is None or asked == -1:
        return asked and most
    if not 1 <= asked <= most:
        raise RequestError(
            f"truncate_prompt_tokens is {asked}, this model takes 1 to {most} tokens; "
            "-1 cuts inputs to all of them",
            "truncate_prompt_tokens",
        )
    return asked


def check_lengths(inputs: Sequence[EncoderInput], model: ServedModel, parameter: str) -> None:
    """Raise RequestError for the first input that the model cannot take."""
    most = model.context_length
    for index, each in enumerate(inputs):
        if not each.token_ids:
            raise RequestError(f"{parameter}[{index}] has no tokens", parameter)
        if len(each.token_ids) > most:
            raise ContextLengthError(
                f"this model takes {most} tokens, {parameter}[{index}] has "
                f"{len(each.token_ids)}; shorten it, or set truncate_prompt_tokens to -1",
                parameter,
            )


def num_tokens(inputs: Sequence[EncoderInput]) -> int:
    return sum(len(each.token_ids) for each in inputs)


async def encode(service: Service, tenant: Tenant, inputs: Sequence[EncoderInput]) -> list[bytes]:
    """What the engine makes of each input, in their order; cancelled, it aborts what is left.

    Raises:
        RequestError: a rank refused an input; OverloadedError where there was no room.
        EngineDeadError: an input was lost.
    """
    requests = [_request(tenant, each) for each in inputs]
    starts = range(0, len(requests), _INPUTS_PER_PIECE)
    pieces = (requests[start : start + _INPUTS_PER_PIECE] for start in starts)
    timers = {each.request_id: service.metrics.timer(tenant.model.name) for each in requests}
    values: dict[str, bytes] = {}
    # All lanes draw from the same pieces.
    lanes = [_lane(service.client, pieces) for _ in starts[:_PIECES_AT_ONCE]]
    with lifetimes(timers.values()):
        async with aclosing(merge(lanes)) as events:
            async for event in events:
                raise_failure(event)
                values[event.request_id] = event.values
                timers[event.request_id].end("stop")
        if len(values) < len(requests):
            raise EngineDeadError("the engine ended its stream before the answer; send it again")
    return [values[each.request_id] for each in requests]


async def _lane(
    client: EngineClient, pieces: Iterator[Sequence[Request]]
) -> AsyncGenerator[TokenEvent, None]:
    for piece in pieces:
        async with aclosing(client.generate(piece)) as events:
            async for event in events:
                yield event


def _request(tenant: Tenant, each: EncoderInput) -> Request:
    return Request(
        request_id=uuid4().hex,
        prompt_ids=each.token_ids,
        sampling=SamplingParams(),
        tenant=tenant.index,
        second_start=each.second_start,
    )
