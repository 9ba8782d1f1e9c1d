"""Ranks' ends of the lines to a front end, which say what a test tells them to."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from moe_serve.control.requests.link import RankLink
from moe_serve.control.requests.remote_engine import RemoteEngine
from moe_serve.control.requests.router import Router
from moe_serve.messages import Command, MembershipNews, RankStats, Report
from moe_serve.types import TokenEvent as Event

SECRET = b"0123456789abcdef"


class ScriptedRank:
    """A rank's end of the line, which says what the test tells it to."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.link = RankLink("127.0.0.1", SECRET)
        self.commands: list[Command] = []

    def tell(self, *events: Event, news: MembershipNews | None = None) -> None:
        stats = RankStats(plan_rank=self.number)
        self.link.send(Report(plan_rank=self.number, events=events, stats=stats, news=news))

    async def hears(self, is_it: Callable[[Command], bool]) -> Command:
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            await asyncio.sleep(0.005)
            self.commands += self.link.receive()
            for command in self.commands:
                if is_it(command):
                    return command
        raise AssertionError(f"rank {self.number} does not hear it: {self.commands}")

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.link.port}"


async def connect(ranks: Sequence[ScriptedRank], router: Router) -> RemoteEngine:
    engine = RemoteEngine([rank.address for rank in ranks], SECRET, {0: router})
    starting = asyncio.create_task(engine.start())
    for rank in ranks:
        await rank.hears(lambda command: True)
        rank.tell()
    await starting
    return engine


@asynccontextmanager
async def connected(ranks: Sequence[ScriptedRank], router: Router) -> AsyncIterator[RemoteEngine]:
    engine = await connect(ranks, router)
    try:
        yield engine
    finally:
        engine.close()
