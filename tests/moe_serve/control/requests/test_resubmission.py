"""Requests whose rank was lost are all run again: however full the others are, and however soon
the rank is there again."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

import pytest
from scripted_ranks import ScriptedRank, connected

from moe_serve.control.requests.remote_engine import RemoteEngine
from moe_serve.control.requests.router import Router
from moe_serve.errors import OverloadedError
from moe_serve.messages import Command, MembershipNews
from moe_serve.types import Request, SamplingParams
from moe_serve.types import TokenEvent as Event

MAX_LIVE = 2
SECONDS = 20.0
REQUEST = Request(request_id="", prompt_ids=(1, 2), sampling=SamplingParams())


@dataclass
class Stream:
    """A request that a rank has, and that a client waits for."""

    name: str
    events: AsyncGenerator[Event, None]
    first: asyncio.Future[Event]


def new_router() -> Router:
    return Router([1.0, 1.0], block_size=4, max_live=MAX_LIVE)


def names(command: Command) -> list[str]:
    return [request.request_id for request in command.submit]


async def fill(engine: RemoteEngine, ranks: Sequence[ScriptedRank]) -> dict[int, list[Stream]]:
    """As many requests as all ranks may hold, by rank."""
    streams: dict[int, list[Stream]] = {rank.number: [] for rank in ranks}
    for name in "abcd":
        events = engine.generate([replace(REQUEST, request_id=name)])
        first = asyncio.ensure_future(anext(events))
        number = len(streams[0]) + len(streams[1])
        rank = ranks[number % 2]
        await rank.hears(lambda command, name=name: name in names(command))  # type: ignore[misc]
        streams[rank.number].append(Stream(name, events, first))
    with pytest.raises(OverloadedError):
        await anext(engine.generate([replace(REQUEST, request_id="e")]))
    return streams


async def finish(rank: ScriptedRank, stream: Stream, index: int = 0) -> None:
    rank.tell(Event(stream.name, index, 50 + index, finish_reason="length"))
    last = await stream.first if index == 0 else await anext(stream.events)
    assert (last.token_id, last.finish_reason) == (50 + index, "length")
    with pytest.raises(StopAsyncIteration):
        await anext(stream.events)


def test_full_ranks_take_over_what_was_admitted_and_counts_stay_true(
    ranks: list[ScriptedRank],
) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(SECONDS), connected(ranks, new_router()) as engine:
            streams = await fill(engine, ranks)
            ranks[0].tell(news=MembershipNews(1, (1,), "", {0: ranks[0].address}))
            for stream in streams[1]:
                again = await ranks[0].hears(
                    lambda command, name=stream.name: (  # type: ignore[misc]
                        name in names(command) and command.submit[0].was_admitted
                    )
                )
                assert again.submit[0].generated_ids == ()
            with pytest.raises(OverloadedError, match="4 requests or more"):
                await anext(engine.generate([replace(REQUEST, request_id="f")]))
            for stream in (*streams[0], *streams[1]):
                await finish(ranks[0], stream)
            # As many fit as before: each has ended once.
            again_full = [
                asyncio.ensure_future(anext(engine.generate([replace(REQUEST, request_id=name)])))
                for name in "gh"
            ]
            await ranks[0].hears(lambda command: "h" in names(command))
            with pytest.raises(OverloadedError, match="2 requests or more"):
                await anext(engine.generate([replace(REQUEST, request_id="i")]))
            for future in again_full:
                future.cancel()

    asyncio.run(scenario())


def test_a_rank_that_was_lost_and_is_there_before_the_news_gets_its_requests_again(
    ranks: list[ScriptedRank],
) -> None:
    """The others had not regrouped when it came back: all that is told is that nobody is lost."""

    async def scenario() -> None:
        async with asyncio.timeout(SECONDS), connected(ranks, new_router()) as engine:
            streams = await fill(engine, ranks)
            kept, lost = streams[1]
            ranks[1].tell(Event(lost.name, 0, 50))
            assert (await lost.first).token_id == 50
            fresh = ScriptedRank(1)
            try:
                links = {0: ranks[0].address, 1: fresh.address}
                ranks[0].tell(news=MembershipNews(2, (), "", links))
                await fresh.hears(lambda command: kept.name in names(command))
                again = await fresh.hears(lambda command: lost.name in names(command))
                assert again.submit[0].generated_ids == (50,)
                # Those of the other rank are not its business.
                submitted = [name for command in fresh.commands for name in names(command)]
                assert sorted(submitted) == sorted((kept.name, lost.name))
                await finish(fresh, lost, 1)
                await finish(fresh, kept)
            finally:
                fresh.link.close()
            for stream in streams[0]:
                await finish(ranks[0], stream)
            assert engine.num_live == 0

    asyncio.run(scenario())


def test_where_no_rank_is_left_it_says_so_and_ends_once(ranks: list[ScriptedRank]) -> None:
    async def scenario() -> None:
        router = Router([0.0, 1.0], block_size=4, max_live=MAX_LIVE)
        async with asyncio.timeout(SECONDS), connected(ranks, router) as engine:
            events = engine.generate([replace(REQUEST, request_id="a")])
            waiting = asyncio.ensure_future(anext(events))
            await ranks[1].hears(lambda command: bool(command.submit))
            ranks[0].tell(news=MembershipNews(1, (1,), "", {0: ranks[0].address}))
            last = await waiting
            assert (last.finish_reason, last.error_kind) == ("error", "engine")
            assert "start its pool again" in last.error
            router.exclude(())
            # None is counted twice as ended.
            for _ in range(MAX_LIVE):
                router.pick([1], 1)
            with pytest.raises(OverloadedError, match="2 requests or more"):
                router.pick([1], 1)

    asyncio.run(scenario())
