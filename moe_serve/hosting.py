"""All models of one rank: one that has it to itself, or several within their slices."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import msgspec
from moe_comm.transport.exchange import Exchange
from moe_placement.plan import Plan

from moe_serve.bring_up import Meeting
from moe_serve.build import Rank, build_rank
from moe_serve.config.tree import Config
from moe_serve.config.validate import COLLECTIVES
from moe_serve.control.meeting.together import together
from moe_serve.control.planning.deployment import pool_plans
from moe_serve.control.planning.groups import RankGroups
from moe_serve.control.planning.model_json import require_weights
from moe_serve.control.planning.slices import SlicePlan
from moe_serve.control.planning.tenant_view import plan_slices
from moe_serve.demo import with_demo
from moe_serve.exchanges import RankExchanges, open_exchanges
from moe_serve.open_rank import OpenRank, open_rank
from moe_serve.step.tenant import Tenant
from moe_serve.survive.welcome import Welcome
from moe_serve.tenant_loader import TenantLoader
from moe_serve.types import ServedModel, Task


@dataclass(frozen=True, slots=True)
class Host:
    """What bring-up hands to the serving loop.

    Attributes:
        config: as it was read, but that the demo model has its path.
        main: the first model that is on all ranks, if there is one: its experts may move, and its
            prompts may be computed apart.
        main_tenant: its number; -1 where there is none.
        exchange: of the rank's EP group, between hosts; the step header runs over it.
        tenants: all models, here or elsewhere.
        served: by number of the tenant.
        slices: who has what; None where one model has the ranks to itself.
        loader: of further models.
    """

    config: Config
    main: Rank | None
    main_tenant: int
    exchange: Exchange
    tenants: tuple[Tenant, ...]
    served: tuple[ServedModel, ...]
    slices: SlicePlan | None = None
    loader: TenantLoader | None = None

    def use_device(self) -> AbstractContextManager[None]:
        """Where the serving loop computes."""
        return nullcontext() if self.loader is None else self.loader.use_device()


def host_models(config: Config, meeting: Meeting, welcome: Welcome | None = None) -> Host:
    """Bring up all models of a config; every rank calls it.

    Args, Raises:
        as `open_rank` has them.
    """
    if not config.has_slices:
        rank = build_rank(config, meeting, welcome)
        tenant = Tenant(number=0, engine=rank.engine)
        return Host(config, rank, 0, rank.exchange, (tenant,), (rank.served,))
    exchange = meeting.exchange
    opened = open_rank(config, meeting)
    config = together(exchange, lambda: with_demo(config))
    tasks, slices = together(exchange, lambda: _plan(config, opened.memories))
    loader = together(exchange, lambda: TenantLoader(config, opened, slices))
    found = [loader.bring_up(tenant, tasks[tenant.number]) for tenant in slices.tenants]
    # All of them, so that a model which comes later finds those that it needs.
    exchanges = together(exchange, lambda: _open_exchanges(config, opened))
    main = next((each for each in found if each.is_on_all_ranks), None)
    return Host(
        config,
        main.rank if main else None,
        main.tenant.number if main else -1,
        exchanges.steps,
        tuple(each.tenant for each in found),
        _served_anywhere(exchange, [each.served for each in found]),
        slices,
        loader,
    )


def _open_exchanges(config: Config, opened: OpenRank) -> RankExchanges:
    pool = config.pool_of(opened.rank)
    collective = COLLECTIVES[pool.device][0] if pool.collective == "auto" else pool.collective
    groups = RankGroups.of(config, no_plan(config))
    return open_exchanges(groups, opened.meeting, collective, opened.device.torch_device)


def no_plan(config: Config) -> Plan:
    """Of ranks none of whose models is on all of them."""
    return Plan("", 0, pool_plans(config), {})


def _plan(config: Config, memories: Sequence[int]) -> tuple[list[Task], SlicePlan]:
    require_weights(config)
    candidates, slices = plan_slices(config, memories)
    return [each.task for each in candidates], slices


def _served_anywhere(
    exchange: Exchange, served: Sequence[ServedModel | None]
) -> tuple[ServedModel, ...]:
    told = exchange.allgather_bytes(msgspec.msgpack.encode(served))
    by_rank = [msgspec.msgpack.decode(each, type=list[ServedModel | None]) for each in told]
    return tuple(next(filter(None, each)) for each in zip(*by_rank, strict=True))
