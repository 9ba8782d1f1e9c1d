"""Builds one rank, config in and engine out: the place where hardware and placement meet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from moe_comm.collective import CollectiveDispatcher
from moe_comm.dispatcher import Dispatcher
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable
from moe_comm.transport.exchange import Exchange
from moe_devices.device import Device
from moe_devices.discover import open_device
from moe_devices.threads import bind_threads
from moe_kernels.table import select_ops
from moe_placement.plan import Plan

from moe_serve.bring_up import Meeting
from moe_serve.config.resolve import resolve
from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.config.unserved import require_served
from moe_serve.control.client import ServedModel
from moe_serve.control.deployment import Deployment, plan_deployment, require_one_plan
from moe_serve.control.host import memory_share
from moe_serve.control.model_json import read_model_json, require_weights
from moe_serve.control.together import together
from moe_serve.control.world import LaunchedWorld
from moe_serve.demo import demo_checkpoint
from moe_serve.models.model import Model
from moe_serve.models.registry import build_model
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.cache import allocate_cache
from moe_serve.step.engine import Engine
from moe_serve.step.runner import Runner
from moe_serve.step.sampler import Sampler
from moe_serve.step.timing import TimedDispatcher, Timer
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.loader import WeightLoader
from moe_serve.weights.progress import count_bytes_to_read, show_progress


@dataclass(frozen=True, slots=True)
class Rank:
    """What bring-up hands to the serving loop.

    Attributes:
        config: resolved.
        exchange: what the engine's steps run over.
    """

    config: Config
    deployment: Deployment
    served: ServedModel
    engine: Engine
    exchange: Exchange


def build_rank(config: Config, meeting: Meeting) -> Rank:
    """Everything between a parsed config and an engine that can step; every rank calls it.

    Raises:
        BringUpError: what keeps any rank from it; the same on every rank.
    """
    launch, exchange = meeting.launch, meeting.exchange
    pool = config.pool_of(launch.rank)
    device = together(exchange, lambda: _open(config, pool, launch))
    config, model_json = together(exchange, lambda: _with_model(config, device))
    share = memory_share(device.memory().total, device.kind, launch.local_size)
    memory = exchange.allgather_bytes(b"%d" % (pool.memory or share))
    deployment = together(
        exchange, lambda: plan_deployment(config, model_json, [int(share) for share in memory])
    )
    require_one_plan(exchange, deployment.plan)
    collective = config.pool_of(launch.rank).collective
    together(exchange, deployment.require_served)
    together(exchange, deployment.require_fit)
    data = together(exchange, lambda: meeting.open_data_exchange(collective, device.torch_device))
    return together(exchange, lambda: _load(config, deployment, launch.rank, device, data))


def _open(config: Config, pool: PoolConfig, launch: LaunchedWorld) -> Device:
    device = open_device(pool.device, launch.local_rank)
    # Some matrix products split their sums by thread; one thread gives one order of adding.
    threads = 1 if config.deterministic else pool.threads
    bind_threads(launch.local_rank, launch.local_size, threads)
    return device


def _with_model(config: Config, device: Device) -> tuple[Config, Mapping[str, Any]]:
    require_weights(config)
    (model,) = config.models
    if model.path == "demo":
        model = replace(model, name=model.name or "demo", path=str(demo_checkpoint()))
    model_json = read_model_json(model)
    config = replace(config, models=(model,))
    native = {device.kind: device.collective}
    resolved = resolve(config, model_json, torch.get_num_threads(), native)
    require_served(resolved)
    return resolved, model_json


def _load(
    config: Config, deployment: Deployment, rank: int, device: Device, exchange: Exchange
) -> Rank:
    (model_config,) = config.models
    pool = config.pool_of(rank)
    plan = deployment.plan
    memory = deployment.memories[rank]
    checkpoint = Checkpoint.open(model_config.path)
    ops = select_ops(device.kind, pool.weights, deterministic=config.deterministic)
    experts = {layer: placed.slots[rank] for layer, placed in plan.layers.items()}
    dtype = getattr(torch, model_config.dtype)
    total = count_bytes_to_read(checkpoint, experts, deployment.spec.num_layers)
    with show_progress(total, visible=rank == 0) as progress:
        loader = WeightLoader(
            checkpoint, ops, device.torch_device, dtype, experts, progress=progress
        )
        model = build_model(checkpoint.config, loader)
    caches = allocate_cache(
        model.cache_specs, memory.num_pages, config.cache.page_size, dtype, device.torch_device
    )
    timer = Timer()
    dispatcher = TimedDispatcher(_dispatcher(plan, exchange), timer)
    engine = Engine(
        plan_rank=rank,
        scheduler=_scheduler(config, memory.num_pages),
        runner=Runner(
            model, caches, dispatcher, ops, config.cache.page_size, device.torch_device, timer
        ),
        sampler=Sampler(model.vocab_size, device.torch_device),
        dispatcher=dispatcher,
        timer=timer,
        num_pages=memory.num_pages,
        vocab_size=model.vocab_size,
    )
    served = _served(model_config, deployment, checkpoint, model)
    return Rank(config, deployment, served, engine, exchange)


def _scheduler(config: Config, num_pages: int) -> Scheduler:
    return Scheduler(
        num_pages=num_pages,
        page_size=config.cache.page_size,
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_sequences=config.scheduler.max_sequences,
        max_live=config.scheduler.max_live,
        max_context=config.models[0].max_context,
        prefix_caching=config.cache.prefix,
    )


def _dispatcher(plan: Plan, exchange: Exchange) -> Dispatcher:
    tables = {
        layer: RoutingTable(layer, placed.slots, placed.weights, plan.num_experts)
        for layer, placed in plan.layers.items()
    }
    if exchange.size == 1:
        return LocalDispatcher(tables)
    return CollectiveDispatcher(exchange, tables)


def _served(
    model_config: ModelConfig, deployment: Deployment, checkpoint: Checkpoint, model: Model
) -> ServedModel:
    # Whichever rank the router picks must be able to hold the longest request.
    num_tokens = min(memory.num_tokens for memory in deployment.memories)
    return ServedModel(
        name=model_config.name,
        path=model_config.path,
        context_length=min(model_config.max_context, num_tokens),
        vocab_size=model.vocab_size,
        end_token_ids=tuple(checkpoint.end_token_ids),
    )
