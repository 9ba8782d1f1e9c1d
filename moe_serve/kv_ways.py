"""Which ends a rank's keys and values go to, or come from, and how they cross."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from moe_comm.kv.declared_link import DeclaredLink
from moe_comm.kv.hello import Hello
from moe_comm.kv.negotiate import CannotConvertError
from moe_comm.kv.routes import routes

from moe_serve.build import Rank
from moe_serve.config.tree import Config
from moe_serve.control.meeting.addresses import first_reachable
from moe_serve.control.planning.expert_problem import find_links
from moe_serve.control.planning.groups import part_of
from moe_serve.errors import BringUpError
from moe_serve.step.kv_peers import KvWay


class KvEnd(msgspec.Struct, frozen=True):
    """One rank's end, as the others know it.

    Attributes:
        addresses: where it listens.
    """

    hello: Hello
    addresses: str


def prefills(rank: Rank, number: int) -> bool:
    """Whether the attention group of a plan rank computes prompts for others."""
    return part_of(rank.parts.groups.attention, number)[0] in rank.prefill_ranks


def partners(rank: Rank, number: int, ends: Mapping[int, KvEnd]) -> dict[int, tuple[int, ...]]:
    """Plan ranks that one sends to, or gets from, by the rank that leads them.

    Args:
        ends: by plan rank.

    Raises:
        BringUpError: what one side holds cannot become what the other needs.
    """
    groups = rank.parts.groups.attention
    own = part_of(groups, number)
    try:
        if prefills(rank, number):
            return {
                leader: _receivers(own, part_of(groups, leader), number, ends)
                for leader in rank.homes
            }
        return {
            leader: _senders(part_of(groups, leader), own, number, ends)
            for leader in rank.prefill_ranks
        }
    except CannotConvertError as error:
        raise BringUpError(f"KV handover: {error}") from error


def ways(config: Config, number: int, called: Mapping[int, KvEnd]) -> dict[str, KvWay]:
    """To the ends that a rank calls, by their names."""
    pools = {other: config.pool_of(other).name for other in called}
    by_pool = {name: _way(config, number, name) for name in pools.values()}
    return {
        end.hello.name: replace(
            by_pool[pools[other]], address=first_reachable(end.addresses).removeprefix("tcp://")
        )
        for other, end in called.items()
    }


def _receivers(
    senders: tuple[int, ...], receivers: tuple[int, ...], number: int, ends: Mapping[int, KvEnd]
) -> tuple[int, ...]:
    chosen = _routes(senders, receivers, ends)
    place = senders.index(number)
    return tuple(receiver for receiver, way in zip(receivers, chosen, strict=True) if place in way)


def _senders(
    senders: tuple[int, ...], receivers: tuple[int, ...], number: int, ends: Mapping[int, KvEnd]
) -> tuple[int, ...]:
    chosen = _routes(senders, receivers, ends)
    return tuple(senders[index] for index in chosen[receivers.index(number)])


def _routes(
    senders: tuple[int, ...], receivers: tuple[int, ...], ends: Mapping[int, KvEnd]
) -> tuple[tuple[int, ...], ...]:
    return routes([ends[each].hello for each in senders], [ends[each].hello for each in receivers])


def _way(config: Config, number: int, pool_name: str) -> KvWay:
    """As the link between the two pools has it, where there is one."""
    own = config.pool_of(number)
    link = next(iter(find_links(config.links, own.name, pool_name)), None)
    if link is None:
        return KvWay("")
    declared = None
    if own.device == "emulated":
        scale = config.emulation.time_scale
        declared = DeclaredLink(link.bandwidth / scale, link.latency * scale)
    return KvWay("", "" if link.wire == "auto" else link.wire, declared)
