"""The front end greets its ranks, of which one is gone by then."""

import asyncio
import socket
from collections.abc import Callable, Iterator

import pytest

from moe_serve.control.requests import remote_engine
from moe_serve.control.requests.link import RankLink
from moe_serve.control.requests.remote_engine import RemoteEngine
from moe_serve.control.requests.router import Router
from moe_serve.errors import BringUpError
from moe_serve.messages import MembershipNews, RankStats, Report

EngineOf = Callable[[], RemoteEngine]
SECRET = b"0123456789abcdef"
REFUSAL = "12 experts were lost with their ranks"


@pytest.fixture
def first() -> Iterator[RankLink]:
    """The line of plan rank 0."""
    link = RankLink("127.0.0.1", SECRET)
    yield link
    link.close()


@pytest.fixture
def engine_of(first: RankLink) -> EngineOf:
    """Of two ranks, of which the second does not listen any more."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        ports = first.port, gone.getsockname()[1]
    return lambda: RemoteEngine(
        [f"tcp://127.0.0.1:{port}" for port in ports], SECRET, {0: Router([1.0, 1.0], 4, 8)}
    )


async def answer(link: RankLink, news: MembershipNews | None = None) -> None:
    """As plan rank 0 does once it is greeted."""
    while not link.receive():
        await asyncio.sleep(0.005)
    link.send(Report(plan_rank=0, stats=RankStats(plan_rank=0), news=news))


def test_one_that_is_lost_is_not_waited_for(first: RankLink, engine_of: EngineOf) -> None:
    async def scenario() -> None:
        engine = engine_of()
        starting = asyncio.create_task(engine.start())
        await answer(first)
        await asyncio.sleep(0.2)
        assert not starting.done() and not engine.is_ready
        news = MembershipNews(1, (1,))
        first.send(Report(plan_rank=0, news=news))
        await asyncio.wait_for(starting, 5.0)
        assert engine.is_ready and engine.membership == news
        engine.close()

    asyncio.run(scenario())


def test_without_it_the_others_may_not_be_able_to_serve(
    first: RankLink, engine_of: EngineOf
) -> None:
    async def scenario() -> None:
        engine = engine_of()
        starting = asyncio.create_task(engine.start())
        await answer(first, MembershipNews(1, (1,), REFUSAL))
        with pytest.raises(BringUpError, match=REFUSAL):
            await asyncio.wait_for(starting, 5.0)
        assert not engine.is_ready
        engine.close()

    asyncio.run(scenario())


def test_one_that_is_not_lost_cannot_be_reached(
    first: RankLink, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_engine, "_FIRST_ANSWER_SECONDS", 0.5)

    async def scenario() -> None:
        engine = engine_of()
        starting = asyncio.create_task(engine.start())
        await answer(first)
        with pytest.raises(BringUpError, match=r"rank 1 does not answer .* open the network"):
            await asyncio.wait_for(starting, 5.0)
        engine.close()

    asyncio.run(scenario())
