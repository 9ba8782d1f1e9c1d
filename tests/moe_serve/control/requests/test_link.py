"""The sockets between front end and ranks: who is heard, and how a request comes back."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import zmq

from moe_serve.control.requests.link import RankLink
from moe_serve.control.requests.remote_engine import RemoteEngine
from moe_serve.control.requests.router import Router
from moe_serve.errors import EngineDeadError, OverloadedError
from moe_serve.messages import Command, RankStats, Report
from moe_serve.types import Request, SamplingParams, TokenEvent

SECRET = b"0123456789abcdef"


class EchoRank(threading.Thread):
    """A rank that answers each request with its own prompt, one event at a time.

    Args:
        last_seconds: how long it thinks before it answers the stop command.
    """

    def __init__(self, plan_rank: int, last_seconds: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.plan_rank = plan_rank
        self.last_seconds = last_seconds
        self.link = RankLink("127.0.0.1", SECRET)
        self.commands: list[Command] = []

    def run(self) -> None:
        while True:
            self.link.wait(1.0)
            for command in self.link.receive():
                self.commands.append(command)
                if command.stop:
                    time.sleep(self.last_seconds)
                stats = RankStats(plan_rank=self.plan_rank)
                self.link.send(Report(plan_rank=self.plan_rank, stats=stats, is_last=command.stop))
                for request in command.submit:
                    self._answer(request)
                if command.stop:
                    self.link.close()
                    return

    def _answer(self, request: Request) -> None:
        for index, token in enumerate(request.prompt_ids):
            last = index + 1 == len(request.prompt_ids)
            if last and request.sampling.ignore_eos:
                return
            event = TokenEvent(
                request.request_id, index, token, finish_reason="stop" if last else None
            )
            self.link.send(Report(plan_rank=self.plan_rank, events=(event,)))


@pytest.fixture
def ranks() -> Iterator[list[EchoRank]]:
    ranks = [EchoRank(0), EchoRank(1)]
    for rank in ranks:
        rank.start()
    yield ranks
    for rank in ranks:
        rank.join(5)
        assert not rank.is_alive()


def request(name: str, *prompt: int, endless: bool = False) -> Request:
    return Request(request_id=name, prompt_ids=prompt, sampling=SamplingParams(ignore_eos=endless))


def connect(ranks: list[EchoRank], max_live: int = 8) -> RemoteEngine:
    addresses = [f"tcp://127.0.0.1:{rank.link.port}" for rank in ranks]
    return RemoteEngine(addresses, SECRET, {0: Router([1.0, 1.0], 4, max_live)})


async def stop(engine: RemoteEngine) -> None:
    await engine.stop_ranks()
    engine.close()


async def tokens_of(engine: RemoteEngine, *requests: Request) -> dict[str, list[int | None]]:
    tokens: dict[str, list[int | None]] = {request.request_id: [] for request in requests}
    async for event in engine.generate(requests):
        tokens[event.request_id].append(event.token_id)
    return tokens


def test_requests_come_back_and_every_rank_gets_every_wake(ranks: list[EchoRank]) -> None:
    async def scenario() -> None:
        engine = connect(ranks)
        assert not engine.is_ready
        with pytest.raises(EngineDeadError, match="starting"):
            await tokens_of(engine, request("early", 1))
        await engine.start()
        answers = await asyncio.gather(
            *(tokens_of(engine, request(str(name), name, 5, 6)) for name in range(6))
        )
        assert answers == [{str(name): [name, 5, 6]} for name in range(6)]
        assert await tokens_of(engine, request("a", 1), request("b", 2)) == {"a": [1], "b": [2]}
        assert engine.num_live == 0
        await stop(engine)

    asyncio.run(scenario())
    ranks[0].join(5)
    wakes = [[command.wake for command in rank.commands if not command.abort] for rank in ranks]
    assert wakes[0] == wakes[1] == list(range(1, len(wakes[0]) + 1))
    assert all(rank.commands[0].submit == () for rank in ranks)


def test_closing_the_stream_aborts_and_a_full_queue_refuses(ranks: list[EchoRank]) -> None:
    async def scenario() -> None:
        engine = connect(ranks, max_live=1)
        await engine.start()
        streams = [engine.generate([request(name, 1, 2, endless=True)]) for name in "ab"]
        for stream in streams:
            assert (await anext(stream)).token_id == 1
        with pytest.raises(
            OverloadedError, match="1 requests or more run or wait on each rank, 1 may"
        ):
            await tokens_of(engine, request("c", 1))
        await streams[0].aclose()
        assert engine.num_live == 1
        assert await tokens_of(engine, request("d", 7)) == {"d": [7]}
        engine.fail("gone")
        last = await anext(streams[1])
        assert (last.finish_reason, last.error) == ("error", "gone")
        assert last.error_kind == "engine"
        with pytest.raises(EngineDeadError, match="gone"):
            await tokens_of(engine, request("e", 1))
        await stop(engine)

    asyncio.run(scenario())
    assert [command.abort for rank in ranks for command in rank.commands if command.abort] == [
        ("a",)
    ]


def test_a_burst_beyond_what_ranks_hold_is_refused_at_once(ranks: list[EchoRank]) -> None:
    async def scenario() -> None:
        engine = connect(ranks, max_live=2)
        await engine.start()
        names = [str(number) for number in range(10)]
        streams = [engine.generate([request(name, 1, 2, endless=True)]) for name in names]
        firsts = await asyncio.gather(*map(anext, streams), return_exceptions=True)
        refused = [first for first in firsts if isinstance(first, OverloadedError)]
        assert (len(refused), engine.num_live) == (6, 4)
        assert {first.token_id for first in firsts if isinstance(first, TokenEvent)} == {1}
        for stream in streams:
            await stream.aclose()
        assert engine.num_live == 0
        assert await tokens_of(engine, request("last", 7)) == {"last": [7]}
        await stop(engine)

    asyncio.run(scenario())
    sent = [len(command.submit) for rank in ranks for command in rank.commands]
    assert sum(sent) == 5


def test_a_peer_without_the_secret_is_not_heard(ranks: list[EchoRank]) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(f"tcp://127.0.0.1:{ranks[0].link.port}")
        stranger.send_multipart([b"wrong", b"\x81\xa4wake\x01"])
        stranger.send_multipart([b"\x81\xa4wake\x01"])
        assert stranger.poll(300) == 0

    async def scenario() -> None:
        engine = connect(ranks)
        await engine.start()
        await stop(engine)

    asyncio.run(scenario())
    assert [command.wake for command in ranks[0].commands] == [1, 2]


def part_at_once(seed: int) -> None:
    """A front end that leaves with its stop command still unanswered, while the rank closes."""
    draw = random.Random(seed)
    encode = msgspec.msgpack.Encoder().encode
    for _ in range(250):
        rank = EchoRank(0, draw.uniform(0.0, 0.0006))
        rank.start()
        with zmq.Context() as context, context.socket(zmq.DEALER) as front_end:
            front_end.linger = 1000
            front_end.connect(f"tcp://127.0.0.1:{rank.link.port}")
            front_end.send_multipart([SECRET, encode(Command(wake=1))])
            assert front_end.poll(5000)
            front_end.send_multipart([SECRET, encode(Command(wake=2, stop=True))])
        rank.join(5)
        assert not rank.is_alive(), "the rank waits for a front end that has left"


@pytest.mark.slow
def test_ranks_close_whenever_their_front_end_leaves() -> None:
    """A matter of microseconds: where a rank may wait for ever, about one in 300 does."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(part_at_once, range(8)))
