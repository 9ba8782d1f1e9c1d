"""An EngineClient in the server's own process: engines of encoders behind HTTP, without ranks."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from moe_serve.encoders.engine import EncoderEngine
from moe_serve.errors import OverloadedError, RequestError
from moe_serve.messages import MembershipNews, RankStats
from moe_serve.types import ErrorKind, Request, TokenEvent


class EncoderClient:
    """Runs each tenant's engine in the server's loop, a step whenever somebody waits for one.

    Attributes:
        seconds_per_step: waited before each step.
        seen: all requests so far.
        pieces: how many requests came together, for each call.
        most_live: the most requests that were live at once.
    """

    is_ready = True
    membership = MembershipNews(0, ())
    expert_imbalance = 1.0

    def __init__(self, engines: Sequence[EncoderEngine]) -> None:
        self.engines = engines
        self.seconds_per_step = 0.0
        self.seen: list[Request] = []
        self.pieces: list[int] = []
        self.most_live = 0
        self._queues: dict[str, asyncio.Queue[TokenEvent]] = {}

    def stats(self) -> Sequence[RankStats]:
        return [engine.stats() for engine in self.engines]

    @property
    def num_live(self) -> int:
        return len(self._queues)

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[TokenEvent, None]:
        engine, queue = self.engines[requests[0].tenant], asyncio.Queue[TokenEvent]()
        self.seen.extend(requests)
        self.pieces.append(len(requests))
        for request in requests:
            self._queues[request.request_id] = queue
            try:
                engine.add(request)
            except RequestError as error:
                queue.put_nowait(_refusal(request, error))
        self.most_live = max(self.most_live, len(self._queues))
        names = {request.request_id for request in requests}
        try:
            for _ in requests:
                while queue.empty():
                    await self._step(engine)
                yield queue.get_nowait()
        finally:
            for name in names & self._queues.keys():
                self.abort(name)

    def abort(self, request_id: str) -> None:
        del self._queues[request_id]
        for engine in self.engines:
            engine.abort(request_id)

    async def _step(self, engine: EncoderEngine) -> None:
        await asyncio.sleep(self.seconds_per_step)
        for event in engine.step():
            self._queues.pop(event.request_id).put_nowait(event)


def _refusal(request: Request, error: RequestError) -> TokenEvent:
    kind: ErrorKind = "overloaded" if isinstance(error, OverloadedError) else "request"
    return TokenEvent(
        request.request_id, 0, None, finish_reason="error", error=str(error), error_kind=kind
    )
