"""Live requests: which rank has each of them, what came of it, and who waits for its tokens."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import replace

from moe_serve.control.requests.journal import Entry, Journal
from moe_serve.control.requests.rank_lines import RankLines
from moe_serve.control.requests.router import Route, Router
from moe_serve.control.requests.submissions import submissions
from moe_serve.errors import EngineDeadError, RequestError, UnknownModelError
from moe_serve.messages import Command
from moe_serve.types import ErrorKind, Request, TokenEvent

logger = logging.getLogger(__name__)


class LiveRequests:
    """Lives in one asyncio loop.

    Args:
        lines: to the ranks.
        routers: by number of the tenant.

    Attributes:
        refusal: why no request is taken; empty where they are.
    """

    def __init__(self, lines: RankLines, routers: Mapping[int, Router]) -> None:
        self.refusal = "the server is still starting"
        self._lines = lines
        self._routers = dict(routers)
        self._refused: set[int] = set()
        self._journal = Journal()
        self._queues: dict[str, asyncio.Queue[TokenEvent]] = {}

    def __len__(self) -> int:
        return len(self._journal)

    def of_tenant(self, tenant: int) -> list[str]:
        """Ids of a tenant's live requests."""
        return self._journal.of_tenant(tenant)

    def open_tenant(self, number: int, router: Router) -> None:
        """From now on it may be asked."""
        self._routers[number] = router

    def end_tenant(self, number: int) -> None:
        """From now on it takes no more requests, and those that are live end."""
        self._refused.add(number)
        for request_id in self.of_tenant(number):
            self.abort(request_id)
            # What a rank says of an abort does not tell why.
            self._fail(request_id, "the model was unloaded before the request ended", "unloaded")

    def close_tenant(self, number: int) -> None:
        """No rank has it any more."""
        self._refused.discard(number)
        del self._routers[number]

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[TokenEvent, None]:
        """Events of the choices of one request, as they come; see EngineClient."""
        route = self._admit(requests)
        queue: asyncio.Queue[TokenEvent] = asyncio.Queue()
        placed = [replace(request, prefill_rank=route.prefill_rank) for request in requests]
        for request in placed:
            self._journal.open(request, route.rank)
            self._queues[request.request_id] = queue
        self._lines.send_all(submissions(placed, route))
        unfinished = {request.request_id for request in requests}
        try:
            while unfinished:
                event = await queue.get()
                if event.finish_reason is not None:
                    unfinished.discard(event.request_id)
                yield event
        finally:
            for request_id in unfinished:
                self.abort(request_id)
                self._end(request_id)

    def abort(self, request_id: str) -> None:
        entry = self._journal.get(request_id)
        if entry is not None:
            self._lines.send(entry.rank, Command(wake=0, abort=(request_id,)))

    def deliver(self, event: TokenEvent) -> None:
        """To who waits for it; to nobody where its request has ended."""
        entry = self._journal.record(event)
        if entry is None:
            return
        if event.token_id is not None:
            self._finish_prefill(entry)
        self._queues[event.request_id].put_nowait(event)
        if event.finish_reason is not None:
            self._end(event.request_id)

    def fail_all(self, reason: str) -> None:
        """End every live request with an error, and refuse others."""
        self.refusal = reason
        for request_id in list(self._queues):
            self._fail(request_id, reason)

    def exclude(self, lost: Collection[int], returned: Collection[int]) -> None:
        """Send nothing more to ranks that are lost, and know of no caches of those that are there
        anew."""
        for router in self._routers.values():
            router.exclude(lost)
            router.forget_caches(returned)

    def resubmit(self, ranks: Collection[int]) -> None:
        """What these ranks ran goes on elsewhere, from the tokens that came back."""
        for entry in self._journal.of_ranks(ranks):
            self._resubmit(entry)

    def _admit(self, requests: Sequence[Request]) -> Route:
        if self.refusal:
            raise EngineDeadError(self.refusal)
        first = requests[0]
        router = self._routers.get(first.tenant)
        if router is None or first.tenant in self._refused:
            raise UnknownModelError("the model that was asked for has been unloaded", "model")
        return router.pick(first.prompt_ids, len(requests))

    def _resubmit(self, entry: Entry) -> None:
        rest = entry.rest
        self._finish_prefill(entry)
        try:
            # Not to be prefilled apart: whoever would do that may be about to be lost as well.
            entry.rank = self._routers[rest.tenant].move(
                entry.rank, (*rest.prompt_ids, *rest.generated_ids)
            )
        except RequestError as error:
            self._fail(rest.request_id, f"a rank was lost: {error}")
            return
        logger.info("request %s goes on on rank %d", rest.request_id, entry.rank)
        self._lines.send_all({entry.rank: Command(wake=0, submit=(rest,))})

    def _fail(self, request_id: str, reason: str, kind: ErrorKind = "engine") -> None:
        self.deliver(
            TokenEvent(request_id, 0, None, finish_reason="error", error=reason, error_kind=kind)
        )

    def _end(self, request_id: str) -> None:
        entry = self._journal.close(request_id)
        if entry is not None:
            self._finish_prefill(entry)
            self._routers[entry.request.tenant].finish(entry.rank)
            del self._queues[request_id]

    def _finish_prefill(self, entry: Entry) -> None:
        rank, request = entry.prefill_rank, entry.request
        if rank is not None:
            # It may not even have begun, where the other rank did not wait for it.
            self._lines.send(rank, Command(wake=0, abort=(request.request_id,)))
            self._routers[request.tenant].finish_prefill(rank, len(request.prompt_ids))
            entry.prefill_rank = None
