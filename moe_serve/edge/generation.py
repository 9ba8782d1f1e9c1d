"""One HTTP request's sequences: sent to the engine, followed to their ends."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from moe_serve.control.requests.client import EngineClient
from moe_serve.edge.choice import Choice, Delta
from moe_serve.edge.lifetimes import lifetimes
from moe_serve.edge.merge import merge
from moe_serve.edge.metrics import SequenceTimer
from moe_serve.errors import EngineDeadError
from moe_serve.types import Request, TokenEvent


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a whole answer; a prompt counts once for all its choices."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_completion_tokens: int


@dataclass(frozen=True, slots=True)
class LiveSequence:
    """One choice with the engine request that feeds it."""

    request: Request
    choice: Choice
    timer: SequenceTimer


class Generation:
    """All choices of one HTTP request.

    Args:
        groups: for each prompt its choices; a group goes to one rank, groups may part.
    """

    def __init__(self, client: EngineClient, groups: Sequence[Sequence[LiveSequence]]) -> None:
        self._client = client
        self._groups = groups
        self._sequences = {
            sequence.request.request_id: sequence for group in groups for sequence in group
        }
        self._num_cached: dict[str, int] = {}

    @property
    def usage(self) -> Usage:
        """So far; final once `deltas` has ended."""
        firsts = [group[0].request for group in self._groups]
        return Usage(
            sum(len(request.prompt_ids) for request in firsts),
            sum(self._num_cached.get(request.request_id, 0) for request in firsts),
            sum(sequence.choice.num_tokens for sequence in self._sequences.values()),
        )

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """One delta for each event, some of them empty; closing this ends every sequence.

        Raises:
            RequestError: a rank refused a sequence; OverloadedError where there was no room.
            EngineDeadError: a sequence was lost.
        """
        with lifetimes([sequence.timer for sequence in self._sequences.values()]):
            async with aclosing(self._follow()) as deltas:
                async for delta in deltas:
                    yield delta

    async def _follow(self) -> AsyncGenerator[Delta, None]:
        unfinished = set(self._sequences)
        streams = [
            self._client.generate([sequence.request for sequence in group])
            for group in self._groups
        ]
        async with aclosing(merge(streams)) as events:
            async for event in events:
                if event.request_id not in unfinished:
                    continue
                delta = self._take(event)
                if delta.finish_reason is not None:
                    unfinished.remove(event.request_id)
                yield delta
                if not unfinished:
                    return
        raise EngineDeadError("the engine ended its stream before the answer; send it again")

    def _take(self, event: TokenEvent) -> Delta:
        sequence = self._sequences[event.request_id]
        self._num_cached.setdefault(event.request_id, event.num_cached_tokens)
        if event.token_id is not None:
            sequence.timer.token()
        delta = sequence.choice.add(event)
        if delta.finish_reason is not None:
            sequence.timer.end(delta.finish_reason)
            if event.finish_reason is None:
                self._client.abort(event.request_id)
        return delta
