"""A model that is unloaded while its rank does not do what it is told."""

import asyncio
from collections.abc import Iterator

import pytest
from scripted_ranks import ScriptedRank, connected

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.control.planning.slices import SlicePlan
from moe_serve.control.requests.router import Router
from moe_serve.control.requests.slice_keeper import SliceKeeper
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.service import Service
from moe_serve.errors import UnknownModelError
from moe_serve.messages import ALL_RANKS, Command, PlacedTenant, Report, TenantNews
from moe_serve.types import Request, SamplingParams, TokenEvent

MODEL = ModelConfig(path="/models/guest", name="guest")
CONFIG = Config(models=(MODEL,), pools=(PoolConfig(name="host", device="cpu"),))
PLACED = PlacedTenant(number=0, model=MODEL, rank=ALL_RANKS, share=1.0, memory=1)


def request(name: str) -> Request:
    return Request(request_id=name, prompt_ids=(1,), sampling=SamplingParams())


@pytest.fixture
def rank() -> Iterator[ScriptedRank]:
    rank = ScriptedRank(0)
    yield rank
    rank.link.close()


def test_requests_end_with_their_model_whatever_the_rank_says(rank: ScriptedRank) -> None:
    async def scenario() -> None:
        router = Router([1.0], 0, 8)
        async with connected([rank], router) as engine:
            service = Service(engine, [], Metrics(engine), 0, 0)
            keeper = SliceKeeper(
                CONFIG, SlicePlan((1,), (PLACED,)), engine, service, lambda placed: router
            )
            stream = engine.generate([request("a")])
            first = asyncio.create_task(anext(stream))
            await rank.hears(lambda command: bool(command.submit))
            rank.tell(TokenEvent("a", 0, 7))
            assert (await first).token_id == 7
            gone = asyncio.create_task(keeper.unload("guest", grace=0.0))
            await rank.hears(lambda command: command.abort == ("a",))
            last = await asyncio.wait_for(anext(stream), 5)
            assert (last.finish_reason, last.error_kind) == ("error", "unloaded")
            assert "was unloaded" in last.error
            assert engine.num_live == 0
            with pytest.raises(UnknownModelError, match="unloaded"):
                await anext(engine.generate([request("late")]))
            rank.tell(TokenEvent("a", 1, 7), TokenEvent("a", 2, None, finish_reason="abort"))
            await _tell_done(rank)
            await asyncio.wait_for(gone, 5)
            assert [event async for event in stream] == []
            with pytest.raises(UnknownModelError, match="unloaded"):
                await anext(engine.generate([request("later")]))

    asyncio.run(scenario())


async def _tell_done(rank: ScriptedRank) -> None:
    def is_change(command: Command) -> bool:
        return command.tenant_change is not None

    change = (await rank.hears(is_change)).tenant_change
    assert change is not None and change.kind == "unload"
    news = TenantNews(number=change.number)
    rank.link.send(Report(plan_rank=rank.number, tenant_news=news))
