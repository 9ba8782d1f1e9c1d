"""Builds one rank, config in and engine out: the place where hardware and placement meet."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from moe_comm.transport.exchange import Exchange
from moe_placement.plan import Plan

from moe_serve.accuracy.self_check import self_check
from moe_serve.accuracy.served import check_prompts
from moe_serve.bring_up import Meeting
from moe_serve.config.resolve import log_choices, resolve
from moe_serve.config.tree import Config
from moe_serve.config.unserved import require_served
from moe_serve.control.meeting.together import together
from moe_serve.control.planning.deployment import Deployment, require_one_plan
from moe_serve.control.planning.groups import RankGroups
from moe_serve.control.planning.model_json import read_model_json, require_weights
from moe_serve.control.planning.phases import plan_phases
from moe_serve.control.requests.client import ServedModel
from moe_serve.demo import with_demo
from moe_serve.exchanges import RankExchanges, exchanges_alone, open_exchanges
from moe_serve.load_rank import LoadedRank, RankParts, load_rank
from moe_serve.open_rank import OpenRank, open_rank
from moe_serve.step.rank_engine import RankEngine
from moe_serve.step.rank_kv import RankKv
from moe_serve.survive.welcome import Welcome
from moe_serve.tenancy import Tenancy
from moe_serve.weights.checkpoint import Checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rank:
    """What bring-up hands to the serving loop.

    Attributes:
        config: resolved.
        homes: plan ranks that take requests.
        prefill_ranks: those that compute prompts for them.
        kv: the rank's cache for handovers; None where it has none to hand over.
        exchange: of the rank's EP group, between hosts; the step header runs over it.
        parts, loaded: what the engine is made of.
    """

    config: Config
    deployment: Deployment
    served: ServedModel
    homes: tuple[int, ...]
    prefill_ranks: tuple[int, ...]
    engine: RankEngine
    kv: RankKv | None
    exchange: Exchange
    parts: RankParts
    loaded: LoadedRank


def build_rank(config: Config, meeting: Meeting, welcome: Welcome | None = None) -> Rank:
    """Everything between a parsed config of one model and an engine that can step; every rank
    calls it.

    Args, Raises:
        as `open_rank` has them.
    """
    opened = open_rank(config, meeting, welcome)
    config, model_json = together(meeting.exchange, lambda: _with_model(config))
    plan = welcome.plan if welcome is not None else None
    return build_model(config, model_json, opened, opened.memories, plan)


def build_model(
    config: Config,
    model_json: Mapping[str, Any],
    opened: OpenRank,
    memories: Sequence[int],
    plan: Plan | None,
) -> Rank:
    """A model that has its ranks to itself; every rank calls it.

    Args:
        config: resolved.
        memories: bytes by plan rank that it may have.
        plan: that others run by now; None where none do.

    Raises:
        BringUpError: what keeps any rank from it; the same on every rank.
    """
    meeting, exchange = opened.meeting, opened.meeting.exchange
    config, deployment = together(exchange, partial(plan_phases, config, model_json, memories))
    deployment = deployment if plan is None else deployment.with_plan(plan)
    require_one_plan(exchange, deployment.plan)
    together(exchange, deployment.require_served)
    together(exchange, deployment.require_fit)
    _log_reasons(deployment)
    groups = RankGroups.of(config, deployment.plan)
    exchanges = exchanges_alone()
    if not meeting.comes_back:
        exchanges = together(exchange, lambda: _exchanges(config, groups, opened))
    parts = RankParts(config, deployment, opened.rank, opened.device, groups, exchanges)
    loaded = together(exchange, lambda: load_rank(parts))
    if config.accuracy.max_kl and not meeting.comes_back:
        _check_accuracy(parts, loaded, exchange)
    return _rank(parts, loaded)


def load_model(config: Config, deployment: Deployment, opened: OpenRank, tenancy: Tenancy) -> Rank:
    """This rank's part of a model that others load too, or of one that is on this rank alone. Where
    the exchanges that it needs are open, no rank waits for another.

    Args:
        config: resolved, of this model alone.
        deployment: fits, and can be served.

    Raises:
        MoeServeError: what keeps this rank from it.
    """
    _log_reasons(deployment)
    groups = RankGroups.of(config, deployment.plan)
    is_alone = config.num_ranks == 1
    # Those of all ranks are there from bring-up.
    exchanges = exchanges_alone() if is_alone else _exchanges(config, groups, opened)
    number = 0 if is_alone else opened.rank
    parts = RankParts(config, deployment, number, opened.device, groups, exchanges, tenancy)
    return _rank(parts, load_rank(parts))


def _log_reasons(deployment: Deployment) -> None:
    for reason in deployment.reasons:
        logger.info("placement.plan: %s", reason)


def _exchanges(config: Config, groups: RankGroups, opened: OpenRank) -> RankExchanges:
    collective = config.pool_of(opened.rank).collective
    return open_exchanges(groups, opened.meeting, collective, opened.device.torch_device)


def _rank(parts: RankParts, loaded: LoadedRank) -> Rank:
    plan, groups = parts.deployment.plan, parts.groups
    return Rank(
        parts.config,
        parts.deployment,
        loaded.served,
        groups.homes(plan),
        groups.prefill_ranks(plan),
        loaded.engine,
        loaded.kv,
        parts.exchanges.steps,
        parts,
        loaded,
    )


def _check_accuracy(parts: RankParts, loaded: LoadedRank, exchange: Exchange) -> None:
    """Compare what is served with the checkpoint's own answers; all ranks do so together.

    Raises:
        AgreedError: they differ by more than the config allows.
    """
    config, plan = parts.config, parts.deployment.plan
    page_size = config.cache.page_size
    num_pages = min(
        memory.num_pages
        for memory in parts.deployment.memories
        if plan.role_of(memory.rank) != "experts"
    )
    found = self_check(
        exchange,
        Checkpoint.open(config.models[0].path),
        loaded.runner.run,
        check_prompts(loaded.served.vocab_size, num_pages, page_size),
        page_size,
        parts.has_attention and parts.groups.is_leader(parts.rank),
        config.accuracy.max_kl,
    )
    if found is not None:
        logger.info(
            "accuracy: %.3g nats per token from the float32 reference, %.3g at most",
            found.mean,
            found.largest,
        )


def _with_model(config: Config) -> tuple[Config, Mapping[str, Any]]:
    require_weights(config)
    config = with_demo(config)
    model_json = read_model_json(config.models[0])
    resolved = resolve(config, model_json, torch.get_num_threads())
    log_choices(config, resolved)
    require_served(resolved)
    return resolved, model_json
