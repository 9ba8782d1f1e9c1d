"""The engine as the front end sees it: ranks behind sockets, a router and a journal."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Sequence

import zmq.asyncio

from moe_serve.control.imbalance import ImbalanceWindow
from moe_serve.control.journal import Journal
from moe_serve.control.link import FrontEndLink
from moe_serve.control.router import Router
from moe_serve.errors import EngineDeadError
from moe_serve.types import Command, RankStats, Report, Request, TokenEvent

logger = logging.getLogger(__name__)


class RemoteEngine:
    """An EngineClient over ZeroMQ; lives in one asyncio loop.

    Args:
        addresses: of the ranks' links, by plan rank.
    """

    def __init__(self, addresses: Sequence[str], secret: bytes, router: Router) -> None:
        self._context = zmq.asyncio.Context()
        self._links = [FrontEndLink(self._context, address, secret) for address in addresses]
        self._router = router
        self._journal = Journal()
        self._queues: dict[str, asyncio.Queue[TokenEvent]] = {}
        self._stats = [RankStats(plan_rank=rank) for rank in range(len(addresses))]
        self._imbalance = ImbalanceWindow(len(addresses))
        self._heard = [asyncio.Event() for _ in addresses]
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._wake = 0
        self._refusal = "the server is still starting"

    @property
    def is_ready(self) -> bool:
        return not self._refusal

    @property
    def num_live(self) -> int:
        return len(self._journal)

    @property
    def expert_imbalance(self) -> float:
        return self._imbalance.value

    def stats(self) -> Sequence[RankStats]:
        return tuple(self._stats)

    async def start(self) -> None:
        """Greet every rank and wait until each has answered."""
        self._tasks = [
            asyncio.create_task(self._listen(rank, link)) for rank, link in enumerate(self._links)
        ]
        self._send_all({})
        await asyncio.gather(*(heard.wait() for heard in self._heard))
        self._refusal = ""

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[TokenEvent, None]:
        rank = self._admit(requests)
        queue: asyncio.Queue[TokenEvent] = asyncio.Queue()
        for request in requests:
            self._journal.open(request, rank)
            self._queues[request.request_id] = queue
        self._send_all({rank: Command(wake=0, submit=tuple(requests))})
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

    async def guard(self) -> None:
        """Wait as long as every rank is listened to.

        Raises:
            EngineDeadError: a rank's line has ended.
        """
        ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
        raise EngineDeadError("the line to a rank has ended")

    def abort(self, request_id: str) -> None:
        entry = self._journal.get(request_id)
        if entry is not None:
            self._send(entry.rank, Command(wake=self._wake, abort=(request_id,)))

    def drain(self) -> None:
        """Refuse new requests; those that are live go on."""
        self._refusal = "the server is draining; try another one"

    def fail(self, reason: str) -> None:
        """The ranks are gone: end every live request with an error."""
        self._refusal = reason
        for request_id in list(self._queues):
            self._deliver(
                TokenEvent(
                    request_id, 0, None, finish_reason="error", error=reason, error_kind="engine"
                )
            )

    async def stop_ranks(self) -> None:
        """Tell every rank to leave its serving loop."""
        self._send_all(dict.fromkeys(range(len(self._links)), Command(wake=0, stop=True)))
        await asyncio.gather(*self._sending)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for link in self._links:
            link.close()
        self._context.term()

    def _admit(self, requests: Sequence[Request]) -> int:
        if self._refusal:
            raise EngineDeadError(self._refusal)
        return self._router.pick(requests[0].prompt_ids, len(requests))

    def _send_all(self, commands: dict[int, Command]) -> None:
        """Wake every rank with the next wake number, each with its own command if it has one."""
        self._wake += 1
        empty = Command(wake=0)
        for rank in range(len(self._links)):
            command = commands.get(rank, empty)
            self._send(rank, dataclasses.replace(command, wake=self._wake))

    def _send(self, rank: int, command: Command) -> None:
        task = asyncio.ensure_future(self._links[rank].send(command))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _listen(self, rank: int, link: FrontEndLink) -> None:
        while True:
            self._take(rank, await link.receive())

    def _take(self, rank: int, report: Report) -> None:
        self._heard[rank].set()
        if report.stats is not None:
            self._stats[rank] = report.stats
            self._imbalance.add(self._stats)
        for event in report.events:
            self._deliver(event)

    def _deliver(self, event: TokenEvent) -> None:
        if self._journal.record(event) is None:
            return
        self._queues[event.request_id].put_nowait(event)
        if event.finish_reason is not None:
            self._end(event.request_id)

    def _end(self, request_id: str) -> None:
        entry = self._journal.close(request_id)
        if entry is not None:
            self._router.finish(entry.rank)
            del self._queues[request_id]
