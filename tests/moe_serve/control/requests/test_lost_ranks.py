"""Ranks are lost while they answer: the front end goes on elsewhere, from what came back."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scripted_ranks import SECRET, ScriptedRank, connect

from moe_serve.control.requests.remote_engine import RemoteEngine
from moe_serve.control.requests.router import Router
from moe_serve.errors import EngineDeadError
from moe_serve.messages import MembershipNews
from moe_serve.types import Request, SamplingParams
from moe_serve.types import TokenEvent as Event

REQUEST = Request(request_id="a", prompt_ids=(1, 2), sampling=SamplingParams())


@pytest.fixture
def ranks() -> Iterator[list[ScriptedRank]]:
    ranks = [ScriptedRank(number) for number in range(3)]
    yield ranks
    for rank in ranks:
        rank.link.close()


def test_a_request_goes_on_from_the_tokens_that_came(ranks: list[ScriptedRank]) -> None:
    async def scenario() -> None:
        engine = await connect(ranks, Router([1.0, 1.0, 0.0], 4, 8))
        other = engine.generate([replace(REQUEST, request_id="z")])
        first = asyncio.ensure_future(anext(other))
        await ranks[0].hears(lambda command: bool(command.submit))
        events = engine.generate([REQUEST])
        waiting = asyncio.ensure_future(anext(events))
        await ranks[1].hears(lambda command: bool(command.submit))
        ranks[1].tell(Event("a", 0, 50), Event("a", 1, 51))
        assert [(await waiting).token_id, (await anext(events)).token_id] == [50, 51]
        news = MembershipNews(1, (1, 2))
        ranks[0].tell(news=news)
        again = await ranks[0].hears(
            lambda command: any(each.request_id == "a" for each in command.submit)
        )
        assert [each.generated_ids for each in again.submit] == [(50, 51)]
        assert engine.membership == news and engine.is_ready
        # It was cut off, and speaks again; the rank that goes on says it as well.
        ranks[1].tell(Event("a", 2, 99))
        await asyncio.sleep(0.1)
        ranks[0].tell(Event("a", 2, 52), Event("a", 3, 53, finish_reason="length"), news=news)
        assert [event.token_id async for event in events] == [52, 53]
        ranks[0].tell(Event("z", 0, 7, finish_reason="stop"))
        assert (await first).token_id == 7
        engine.close()

    asyncio.run(scenario())


def test_a_refusal_ends_all_and_names_why(ranks: list[ScriptedRank]) -> None:
    async def scenario() -> None:
        engine = await connect(ranks, Router([1.0, 1.0, 0.0], 4, 8))
        events = engine.generate([REQUEST])
        waiting = asyncio.ensure_future(anext(events))
        await ranks[0].hears(lambda command: bool(command.submit))
        ranks[0].tell(news=MembershipNews(1, (2,), "expert 8 of layer 0 is missing"))
        last = await waiting
        assert (last.finish_reason, last.error_kind) == ("error", "engine")
        assert "expert 8" in last.error
        assert not engine.is_ready
        with pytest.raises(EngineDeadError, match="expert 8"):
            await anext(engine.generate([REQUEST]))
        engine.close()

    asyncio.run(scenario())


def test_a_rank_that_is_there_again_is_spoken_to_where_it_is(ranks: list[ScriptedRank]) -> None:
    async def scenario() -> None:
        engine = await connect(ranks, Router([1.0, 1.0, 0.0], 4, 8))
        guard = asyncio.ensure_future(engine.guard())
        links = {rank.number: rank.address for rank in ranks}
        lost = MembershipNews(1, (2,), "no room", {0: links[0], 1: links[1]})
        ranks[0].tell(news=lost)
        while engine.membership != lost:
            await asyncio.sleep(0.005)
        assert not engine.is_ready
        again = ScriptedRank(2)
        try:
            links[2] = again.address
            ranks[0].tell(news=MembershipNews(2, (), "", links))
            await again.hears(lambda command: True)
            assert engine.is_ready
            again.tell()
            events = engine.generate([REQUEST])
            waiting = asyncio.ensure_future(anext(events))
            submitted = await ranks[0].hears(lambda command: bool(command.submit))
            await again.hears(lambda command: command.wake >= submitted.wake)
            ranks[0].tell(Event("a", 0, 50, finish_reason="stop"))
            assert (await waiting).token_id == 50
            assert not guard.done()
        finally:
            again.link.close()
        guard.cancel()
        engine.close()

    asyncio.run(scenario())


def test_a_loss_before_the_first_word_does_not_hold_the_start(ranks: list[ScriptedRank]) -> None:
    async def scenario() -> None:
        addresses = [rank.address for rank in ranks]
        engine = RemoteEngine(addresses, SECRET, {0: Router([1.0, 1.0, 1.0], 4, 8)})
        starting = asyncio.create_task(engine.start())
        await ranks[0].hears(lambda command: True)
        ranks[0].tell(news=MembershipNews(1, (1, 2)))
        await asyncio.wait_for(starting, 5.0)
        assert engine.is_ready
        engine.close()

    asyncio.run(scenario())
