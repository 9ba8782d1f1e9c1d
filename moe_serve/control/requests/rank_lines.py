"""The front end's lines to all ranks: commands go out under a wake number, reports come in."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import zmq.asyncio

from moe_serve.control.meeting.addresses import first_reachable
from moe_serve.control.requests.link import FrontEndLink
from moe_serve.errors import BringUpError, EngineDeadError
from moe_serve.messages import Command, Report

logger = logging.getLogger(__name__)


class RankLines:
    """
    Args:
        addresses: of the ranks' links, by plan rank.
        take: is given each report, and the rank that it comes from.

    Attributes:
        wake: the newest wake number.
        lost: ranks that nothing is sent to.
        addresses: as they are now.
        unreached: why a rank could not be reached, of those that could not.
    """

    def __init__(
        self, addresses: Sequence[str], secret: bytes, take: Callable[[int, Report], None]
    ) -> None:
        self.wake = 0
        self.lost: Collection[int] = ()
        self.addresses = list(addresses)
        self.unreached: dict[int, str] = {}
        self._context = zmq.asyncio.Context()
        self._secret = secret
        self._links = [self._open(rank) for rank in range(len(addresses))]
        self._take = take
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listen(rank, link)) for rank, link in enumerate(self._links)
        ]

    async def guard(self) -> None:
        """Wait as long as every rank is listened to; the lines of lost ones are silent.

        Raises:
            EngineDeadError: a rank's line has ended.
        """
        while True:
            tasks = list(self._tasks)
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Those that were put in another's place meanwhile are guarded from now on.
            for task in ended & set(self._tasks):
                task.result()
                raise EngineDeadError("the line to a rank has ended")

    def connect_again(self, rank: int, address: str) -> None:
        """A line to a rank that has come back; it is told the newest wake number."""
        self.addresses[rank] = address
        link = self._open(rank)
        self._tasks[rank].cancel()
        self._links[rank].close()
        self._links[rank] = link
        self._tasks[rank] = asyncio.create_task(self._listen(rank, link))
        self.send(rank, Command(wake=0))

    def send_all(self, commands: Mapping[int, Command]) -> None:
        """Wake every rank with the next wake number, each with its own command if it has one."""
        self.wake += 1
        empty = Command(wake=0)
        for rank in range(len(self._links)):
            self.send(rank, commands.get(rank, empty))

    def send_each(self, command: Command) -> None:
        """The same command to all."""
        self.send_all(dict.fromkeys(range(len(self._links)), command))

    def send(self, rank: int, command: Command) -> None:
        if rank in self.lost:
            return
        command = replace(command, wake=self.wake)
        task = asyncio.ensure_future(self._links[rank].send(command))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def flush(self) -> None:
        await asyncio.gather(*self._sending)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for link in self._links:
            link.close()
        self._context.term()

    def _open(self, rank: int) -> FrontEndLink:
        """A rank that cannot be reached may be lost: that will be known soon."""
        address = self.addresses[rank]
        self.unreached.pop(rank, None)
        try:
            endpoint = first_reachable(address)
        except BringUpError as error:
            self.unreached[rank] = str(error)
            logger.warning("rank %d: %s, unless it is lost", rank, error)
            endpoint = address.split(",")[0]
        return FrontEndLink(self._context, endpoint, self._secret)

    async def _listen(self, rank: int, link: FrontEndLink) -> None:
        while True:
            self._take(rank, await link.receive())
