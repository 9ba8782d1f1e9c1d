"""What becomes of a change that ranks refuse, by whose fault that is."""

import asyncio

import pytest
from scripted_ranks import ScriptedRank, connected

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.control.planning.slices import SlicePlan
from moe_serve.control.requests.router import Router
from moe_serve.control.requests.slice_keeper import SliceKeeper
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.service import Service
from moe_serve.errors import MoeServeError, PlacementError, RankError, RequestError
from moe_serve.messages import ALL_RANKS, Fault, PlacedTenant, Report, TenantNews

MODEL = ModelConfig(path="/models/guest", name="guest")
CONFIG = Config(models=(MODEL,), pools=(PoolConfig(name="host", device="cpu", ranks=2),))
PLACED = PlacedTenant(number=0, model=MODEL, rank=ALL_RANKS, share=1.0, memory=1)


@pytest.mark.parametrize(
    ("faults", "kind", "said"),
    [
        (("room", None), PlacementError, "0 has the room's fault"),
        (("model", None), RequestError, "0 has the model's fault"),
        ((None, "rank"), RankError, "1 has the rank's fault"),
        (("room", "model"), RequestError, "1 has the model's fault"),
        (("model", "rank"), RequestError, "0 has the model's fault"),
    ],
)
def test_what_ranks_refuse_is_an_error_by_whose_fault_it_is(
    ranks: list[ScriptedRank],
    faults: tuple[Fault | None, ...],
    kind: type[MoeServeError],
    said: str,
) -> None:
    async def scenario() -> None:
        router = Router([1.0, 1.0], 0, 8)
        async with connected(ranks, router) as engine:
            service = Service(engine, [], Metrics(engine), 0, 0)
            slices = SlicePlan((1, 1), (PLACED,))
            keeper = SliceKeeper(CONFIG, slices, engine, service, lambda placed: router)
            resized = asyncio.create_task(keeper.resize("guest", {"compute_percent": 50}))
            for rank, fault in zip(ranks, faults, strict=True):
                await _answer(rank, 1, fault)
            # All take back what one refused.
            for rank in ranks:
                await _answer(rank, 2, None)
            with pytest.raises(kind, match=said) as caught:
                await asyncio.wait_for(resized, 5)
            assert type(caught.value) is kind

    asyncio.run(scenario())


async def _answer(rank: ScriptedRank, number: int, fault: Fault | None) -> None:
    """To a change, once it is there."""
    await rank.hears(
        lambda command: command.tenant_change is not None and command.tenant_change.number == number
    )
    said = f"{rank.number} has the {fault}'s fault" if fault else ""
    news = TenantNews(number=number, error=said, fault=fault or "rank")
    rank.link.send(Report(plan_rank=rank.number, tenant_news=news))
