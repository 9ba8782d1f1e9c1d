"""Brings single models up on one rank within their slices, at the start and while it serves."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from moe_devices.partition import Partition

from moe_serve.allotment import Allotment
from moe_serve.build import Rank, load_model
from moe_serve.config.tree import Config
from moe_serve.config.unserved import require_served
from moe_serve.control.meeting.host import host_memory
from moe_serve.control.meeting.together import together
from moe_serve.control.planning.deployment import Deployment, require_one_plan
from moe_serve.control.planning.model_json import read_model_json
from moe_serve.control.planning.own_processors import own_percents
from moe_serve.control.planning.slices import SlicePlan
from moe_serve.control.planning.task import task_of
from moe_serve.control.planning.tenant_view import plan_tenant
from moe_serve.encoders.load import load_encoder
from moe_serve.encoders.memory import encoder_bytes
from moe_serve.messages import ALL_RANKS, PlacedTenant, TenantChange
from moe_serve.open_rank import OpenRank
from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.step.changes import Loaded
from moe_serve.step.lane import Lane
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.tenant import Tenant
from moe_serve.tenancy import Tenancy
from moe_serve.types import ServedModel, Task


@dataclass(frozen=True, slots=True)
class HostedTenant:
    """Attributes:
    served: None where the model is on other ranks.
    rank: of a model that is on all of them and generates text.
    """

    tenant: Tenant
    served: ServedModel | None
    rank: Rank | None = None

    @property
    def is_on_all_ranks(self) -> bool:
        return self.rank is not None and self.tenant.rank == ALL_RANKS


class TenantLoader:
    """Brings models up on this rank, at the start and while it serves.

    Args:
        config: not resolved.

    Raises:
        DeviceError: the device cannot give a model processors of its own as asked.
    """

    def __init__(self, config: Config, opened: OpenRank, slices: SlicePlan) -> None:
        self._config = config
        self._opened = opened
        self._ledger = MemoryLedger(slices.budgets[opened.rank])
        self._threads = torch.get_num_threads()
        self._partitions = _partitions(opened, slices)
        # Mapped for each cache, so that it can grow by whatever others leave or give up later. A
        # rank may be promised more than there is; the system maps no more than that at once.
        self._lendable = min(slices.budgets[opened.rank], host_memory())

    def use_device(self) -> AbstractContextManager[None]:
        """Where this rank's serving loop computes: beside those with processors of their own."""
        rest = self._partitions.get(None)
        return nullcontext() if rest is None else rest.use()

    def bring_up(self, placed: PlacedTenant, task: Task) -> HostedTenant:
        """At the start; every rank calls it for every tenant.

        Raises:
            BringUpError: what keeps any rank from it; the same on every rank.
        """
        exchange = self._opened.meeting.exchange
        if placed.rank != ALL_RANKS or task != "generate":
            return together(exchange, lambda: self._bring_up_here(placed, task))
        view, deployment = together(exchange, lambda: self._prepare(placed))
        require_one_plan(exchange, deployment.plan)
        tenancy = self._tenancy(placed)
        rank = together(exchange, lambda: load_model(view, deployment, self._opened, tenancy))
        return HostedTenant(self._generator(placed, rank), rank.served, rank)

    def load(self, change: TenantChange) -> Loaded:
        """A further model, in a thread beside the serving loop.

        Raises:
            MoeServeError: what keeps this rank from it.
        """
        # The steps of the others need the cores.
        torch.set_num_threads(1)
        placed = change.placed
        try:
            found = self._bring_up_here(placed, task_of(read_model_json(placed.model)))
        except BaseException:
            self._ledger.close(placed.number)
            raise
        assert found.served is not None
        return found.tenant, found.served

    def settle(self) -> None:
        """Between steps: take back what was lent and a model that is loading needs."""
        self._ledger.settle()

    def dismiss(self, gone: list[Tenant]) -> None:
        """Free what they hold that are known here alone."""
        gone.clear()
        self._opened.device.release_memory()

    def _bring_up_here(self, placed: PlacedTenant, task: Task) -> HostedTenant:
        """What of it is this rank's; no rank waits for another."""
        if placed.rank not in (ALL_RANKS, self._opened.rank):
            return HostedTenant(self._tenant(placed, None), None)
        if task != "generate":
            engine, served = self._load_encoder(placed)
            allotment = Allotment(self._ledger, placed, served)
            return HostedTenant(self._tenant(placed, engine, allotment), served)
        view, deployment = self._prepare(placed)
        rank = load_model(view, deployment, self._opened, self._tenancy(placed))
        return HostedTenant(self._generator(placed, rank), rank.served)

    def _prepare(self, placed: PlacedTenant) -> tuple[Config, Deployment]:
        """What a model that generates is to be, with room to map its cache."""
        view, deployment = plan_tenant(self._config, placed, self._threads)
        require_served(view)
        deployment.require_served()
        deployment.require_fit()
        self._opened.allow_mapping(self._tenancy(placed).lendable)
        return view, deployment

    def _load_encoder(self, placed: PlacedTenant) -> tuple[RankEngine, ServedModel]:
        model, scheduler = placed.model, self._config.scheduler
        budget = scheduler.max_tokens_per_step
        path, longest = Path(model.path), model.max_context
        weights, working_space = encoder_bytes(path, model.dtype, budget, longest)
        self._tenancy(placed).book(weights, working_space)
        # Files are mapped as a whole until their numbers are copied.
        self._opened.allow_mapping(sum(file.stat().st_size for file in path.glob("*.safetensors")))
        loaded = load_encoder(
            model.path,
            model.name,
            model.dtype,
            self._opened.device.torch_device,
            budget,
            scheduler.max_live,
            plan_rank=self._opened.rank,
            max_context=model.max_context,
        )
        self._opened.allow_mapping(0)
        return loaded

    def _tenancy(self, placed: PlacedTenant) -> Tenancy:
        # Pages are lent between steps of one thread.
        lends = self._opened.device.lends_memory and placed.takes_turns
        lendable = self._lendable if lends else 0
        return Tenancy(placed.number, self._ledger, lendable, placed.is_hard, placed.takes_turns)

    def _generator(self, placed: PlacedTenant, rank: Rank) -> Tenant:
        most, page_size = rank.config.models[0].max_context, rank.config.cache.page_size
        allotment = Allotment(self._ledger, placed, rank.served, most, page_size)
        return self._tenant(placed, rank.engine, allotment)

    def _tenant(
        self,
        placed: PlacedTenant,
        engine: RankEngine | None,
        allotment: Allotment | None = None,
    ) -> Tenant:
        ledger, number, lane = self._ledger, placed.number, None
        if engine is not None and not placed.takes_turns:
            lane = Lane(engine, self._partitions[number], placed.model.name)
            engine = None
        return Tenant(
            number=number,
            name=placed.model.name,
            rank=placed.rank,
            share=placed.share,
            is_hard=placed.is_hard,
            engine=engine,
            lane=lane,
            memory=lambda: ledger.entries(number),
            resize=allotment.resize if allotment else lambda *_: None,
            close=lambda: ledger.close(number),
            takes_turns=placed.takes_turns,
        )


def _partitions(opened: OpenRank, slices: SlicePlan) -> dict[int | None, Partition]:
    """By tenant with processors of its own; under None what is left for all others."""
    own = own_percents(slices.on(opened.rank))
    if not own:
        return {}
    parts = opened.device.partition(list(own.values()))
    return dict(zip([*own, None], parts, strict=True))
