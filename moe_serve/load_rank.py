"""One rank's weights, cache and kernels become an engine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from moe_comm.dispatcher import Dispatcher
from moe_comm.shard import Shard
from moe_devices.device import Device
from moe_devices.pacer import Pacer
from moe_devices.work import Pace
from moe_kernels.ops import Ops
from moe_kernels.table import select_ops
from moe_placement.memory.rank_weights import expert_bytes

from moe_serve.config.tree import Config
from moe_serve.control.planning.deployment import Deployment
from moe_serve.control.planning.groups import RankGroups, links_between, part_of
from moe_serve.control.planning.hardware import pool_hardware
from moe_serve.control.planning.pace import pace_of
from moe_serve.control.requests.client import ServedModel
from moe_serve.exchanges import RankExchanges, make_dispatcher, routing_tables
from moe_serve.layers.context import LayerCache
from moe_serve.models.expert_reader import ExpertReader, expert_layers
from moe_serve.models.experts_model import ExpertsModel
from moe_serve.models.model import Model
from moe_serve.models.registry import build_experts_model, build_model
from moe_serve.schedule.page_budget import PageBudget
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.cache import allocate_cache, allocate_lending_cache, page_bytes
from moe_serve.step.engine import Engine
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.expert_moves import ExpertMover
from moe_serve.step.follower import Follower
from moe_serve.step.move_budget import MoveLimits
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.rank_kv import RankKv
from moe_serve.step.runner import Runner
from moe_serve.step.sampler import Sampler
from moe_serve.step.timing import TimedDispatcher, Timer
from moe_serve.tenancy import Tenancy
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader
from moe_serve.weights.progress import count_bytes_to_read, show_progress


@dataclass(frozen=True, slots=True)
class RankParts:
    """All that one model on a rank is made of but its weights.

    Attributes:
        tenancy: what it shares the rank with; None where it has that to itself.
    """

    config: Config
    deployment: Deployment
    rank: int
    device: Device
    groups: RankGroups
    exchanges: RankExchanges
    tenancy: Tenancy | None = None

    @property
    def has_attention(self) -> bool:
        return self.deployment.plan.role_of(self.rank) != "experts"

    @property
    def shard(self) -> Shard:
        """This rank among those that share its attention weights."""
        members = part_of(self.groups.attention, self.rank)
        return Shard(members.index(self.rank), len(members))

    @property
    def num_pages(self) -> int:
        """Cache pages; the ranks that share attention hold parts of the same pages."""
        members = part_of(self.groups.attention, self.rank)
        return min(self.deployment.memories[member].num_pages for member in members)

    @property
    def experts(self) -> dict[int, tuple[int, ...]]:
        """The expert in each of this rank's slots, by layer."""
        layers = self.deployment.plan.layers
        return {layer: placed.slots[self.rank] for layer, placed in layers.items()}


@dataclass(frozen=True, slots=True)
class LoadedRank:
    """Attributes:
    kv: the rank's cache for handovers; None without attention.
    dispatcher, runner, pacer: parts of the engine that a loss of ranks changes.
    load: counts where the rank's tokens go.
    mover: brings the rank from one plan to the next while it serves.
    """

    served: ServedModel
    engine: RankEngine
    kv: RankKv | None
    dispatcher: TimedDispatcher
    runner: Runner
    pacer: Pacer
    load: ExpertCounter
    mover: ExpertMover


def load_rank(parts: RankParts) -> LoadedRank:
    """Read this rank's weights and make its engine.

    Raises:
        CheckpointError: a tensor that is missing, misshapen or unreadable.
        UnsupportedError: a model or format that this rank cannot compute.
    """
    config, device = parts.config, parts.device
    if parts.tenancy is not None:
        memory = parts.deployment.memories[parts.rank]
        # Experts that move take theirs while others have steps.
        parts.tenancy.book(memory.weights + memory.moving, memory.working_space)
    checkpoint = Checkpoint.open(config.models[0].path)
    pool = config.pool_of(parts.rank)
    ops = select_ops(
        device.kind,
        pool.weights,
        deterministic=config.deterministic,
        dtype=config.models[0].dtype,
    )
    model = _load_model(parts, checkpoint, ops)
    pacer = device.pacer(lambda: _pace(parts))
    timer = Timer(pacer)
    plan = parts.deployment.plan
    load = ExpertCounter(sorted(plan.layers), plan.num_experts)
    dispatcher = TimedDispatcher(
        make_dispatcher(config, plan, parts.rank, parts.groups, parts.exchanges, pacer), timer, load
    )
    caches, budget = _open_cache(parts, model)
    runner = Runner(
        model,
        caches,
        dispatcher,
        ops,
        config.cache.page_size,
        device.torch_device,
        timer,
        parts.exchanges.attention,
    )
    engine = _engine(parts, runner, dispatcher, timer, model.vocab_size, budget)
    kv = None
    if isinstance(model, Model):
        kv = RankKv.of(model.shape.cache_specs, caches, model.rotary, parts.shard)
    served = _served(parts, checkpoint, model.vocab_size)
    mover = _mover(parts, model, checkpoint, ops, dispatcher)
    return LoadedRank(served, engine, kv, dispatcher, runner, pacer, load, mover)


def _pace(parts: RankParts) -> Pace:
    """What the declared hardware takes for a segment of a step."""
    config, plan = parts.config, parts.deployment.plan
    pool = plan.pool_of(parts.rank)
    names = parts.groups.native_names(plan)
    own = names[parts.rank]
    links = {
        f"{own}>{other}": link
        for other in dict.fromkeys(names.values())
        if other != own
        for link in links_between(config.links, own, other)[:1]
    }
    hardware = pool_hardware(config)[pool.name]
    return pace_of(hardware, parts.deployment.spec, pool, config.models[0].dtype, links)


def _load_model(parts: RankParts, checkpoint: Checkpoint, ops: Ops) -> Model | ExpertsModel:
    build: Callable[..., Model | ExpertsModel] = build_experts_model
    if parts.has_attention:
        build = build_model
    total = count_bytes_to_read(checkpoint, parts.experts, parts.deployment.spec.num_layers)
    with show_progress(total, visible=parts.rank == 0) as progress:
        loader = WeightLoader(
            checkpoint,
            ops,
            parts.device.torch_device,
            getattr(torch, parts.config.models[0].dtype),
            parts.experts,
            progress=progress,
            shard=parts.shard,
        )
        return build(checkpoint.config, loader)


def _mover(
    parts: RankParts,
    model: Model | ExpertsModel,
    checkpoint: Checkpoint,
    ops: Ops,
    dispatcher: Dispatcher,
) -> ExpertMover:
    config, deployment, device = parts.config, parts.deployment, parts.device.torch_device
    plan, memory, moe = deployment.plan, deployment.memories[parts.rank], model.shape.moe
    ranks, pool = part_of(parts.groups.steps, parts.rank), plan.pool_of(parts.rank)
    dtype = getattr(torch, config.models[0].dtype)
    limits = MoveLimits(
        bytes_per_step=config.placement.move_bytes_per_step,
        expert_bytes=expert_bytes(deployment.spec, pool.weight_format, pool.device),
        room=memory.room_for_experts + memory.moving,
    )
    reader = ExpertReader(checkpoint, ops.experts, moe, device, dtype) if moe else None
    tables_of = partial(routing_tables, ranks=ranks)
    layers = expert_layers(model)
    return ExpertMover(parts.rank, plan, layers, reader, dispatcher, tables_of, limits)


def _open_cache(
    parts: RankParts, model: Model | ExpertsModel
) -> tuple[tuple[LayerCache, ...], PageBudget | None]:
    """The rank's cache; where others share its memory, also how much of that it may take."""
    config, num_pages, tenancy = parts.config, parts.num_pages, parts.tenancy
    specs, page_size = model.cache_specs, config.cache.page_size
    dtype, device = getattr(torch, config.models[0].dtype), parts.device.torch_device
    if tenancy is None or not num_pages:
        return allocate_cache(specs, num_pages, page_size, dtype, device), None
    num_bytes, open_pages = page_bytes(specs, page_size, dtype), tenancy.ledger.open_pages
    # Those that share attention must hold the same pages.
    if not tenancy.lendable or parts.shard.count > 1:
        budget = open_pages(tenancy.number, num_bytes, num_pages, num_pages)
        return allocate_cache(specs, num_pages, page_size, dtype, device), budget
    capacity = max(num_pages, tenancy.lendable // num_bytes)
    cache = allocate_lending_cache(specs, capacity, page_size, dtype)
    limit = num_pages if tenancy.is_hard else capacity
    return cache.layers, open_pages(
        tenancy.number, num_bytes, num_pages, limit, cache.discard, capacity
    )


def _engine(
    parts: RankParts,
    runner: Runner,
    dispatcher: TimedDispatcher,
    timer: Timer,
    vocab_size: int,
    budget: PageBudget | None,
) -> RankEngine:
    if not (parts.has_attention and parts.groups.is_leader(parts.rank)):
        return Follower(parts.rank, runner, dispatcher, timer)
    return Engine(
        plan_rank=parts.rank,
        scheduler=_scheduler(parts.config, parts.num_pages, budget),
        runner=runner,
        sampler=Sampler(vocab_size, parts.device.torch_device),
        dispatcher=dispatcher,
        timer=timer,
        num_pages=parts.num_pages,
        vocab_size=vocab_size,
    )


def _scheduler(config: Config, num_pages: int, budget: PageBudget | None) -> Scheduler:
    return Scheduler(
        num_pages=num_pages if budget is None else budget.capacity,
        budget=budget,
        page_size=config.cache.page_size,
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_sequences=config.scheduler.max_sequences,
        max_live=config.scheduler.max_live,
        max_context=config.models[0].max_context,
        prefix_caching=config.cache.prefix,
    )


def _served(parts: RankParts, checkpoint: Checkpoint, vocab_size: int) -> ServedModel:
    model, deployment = parts.config.models[0], parts.deployment
    # Whichever rank the router picks must be able to hold the longest request.
    num_tokens = min(
        memory.num_tokens
        for memory in deployment.memories
        if deployment.plan.role_of(memory.rank) != "experts"
    )
    return ServedModel(
        name=model.name,
        path=model.path,
        context_length=min(model.max_context, num_tokens),
        vocab_size=vocab_size,
        end_token_ids=tuple(checkpoint.end_token_ids),
    )
