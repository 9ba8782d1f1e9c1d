"""What a rank exchanges over: its EP group's hosts, its like devices, its attention group."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
from moe_comm.bridge import BridgeDispatcher
from moe_comm.bridge_routing import GroupPools
from moe_comm.bridge_rows import Wires
from moe_comm.collective import CollectiveDispatcher
from moe_comm.dispatcher import Dispatcher
from moe_comm.local import LocalDispatcher
from moe_comm.routing import RoutingTable
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.paced import over_links
from moe_comm.wire import Wire
from moe_devices.pacer import Pacer
from moe_placement.plan import Plan

from moe_serve.bring_up import Meeting
from moe_serve.config.tree import Config
from moe_serve.control.planning.groups import RankGroups, links_between, part_of


@dataclass(frozen=True, slots=True)
class RankExchanges:
    """Attributes:
    steps: the hosts of the rank's EP group: step headers, and tokens between unlike pools.
    native: the devices of the EP group that are like the rank's own.
    attention: the ranks that share one copy of attention weights.
    """

    steps: Exchange
    native: Exchange
    attention: Exchange


def open_exchanges(
    groups: RankGroups, meeting: Meeting, collective: str, device: torch.device
) -> RankExchanges:
    """Called by all ranks together."""
    return RankExchanges(
        steps=meeting.open_exchange(groups.steps),
        native=meeting.open_native_exchange(groups.native, collective, device),
        attention=meeting.open_native_exchange(groups.attention, collective, device),
    )


def exchanges_alone() -> RankExchanges:
    """Of a rank that has not met the others yet."""
    alone = LocalExchange()
    return RankExchanges(steps=alone, native=alone, attention=alone)


def make_dispatcher(
    config: Config,
    plan: Plan,
    rank: int,
    groups: RankGroups,
    exchanges: RankExchanges,
    pacer: Pacer,
) -> Dispatcher:
    """The way of tokens to their experts, by what the EP group is made of.

    Args:
        pacer: what tokens that leave the pool wait for.
    """
    ranks = part_of(groups.steps, rank)
    if exchanges.steps.size < len(ranks):
        # Nothing can be sent before it has met the others.
        return LocalDispatcher({})
    tables = routing_tables(plan, ranks)
    if exchanges.steps.size == 1:
        return LocalDispatcher(tables)
    if exchanges.native.size == exchanges.steps.size:
        return CollectiveDispatcher(exchanges.native, tables)
    names = groups.native_names(plan)
    pools = GroupPools(tuple(names[each] for each in ranks))
    own = names[rank]
    links = ["" if names[each] == own else f"{own}>{names[each]}" for each in ranks]
    paced = over_links(exchanges.steps, pacer, links)
    return BridgeDispatcher(paced, exchanges.native, pools, tables, _wires(config, pools))


def _wires(config: Config, pools: GroupPools) -> Wires:
    """Precision between each two; of several links between the same two, the first one's."""
    dtype = config.models[0].dtype
    return {
        frozenset((one, other)): cast(Wire, dtype if link.wire == "auto" else link.wire)
        for one, other in combinations(pools.order, 2)
        for link in links_between(config.links, one, other)[:1]
    }


def routing_tables(plan: Plan, ranks: tuple[int, ...]) -> Mapping[int, RoutingTable]:
    """By layer, of the ranks of one EP group."""
    return {
        layer: RoutingTable(
            layer,
            [placed.slots[rank] for rank in ranks],
            [placed.weights[rank] for rank in ranks],
            plan.num_experts,
        )
        for layer, placed in plan.layers.items()
    }
