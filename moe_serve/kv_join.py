"""Joins the ranks that prefill to those that decode, once all of them are loaded."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.hello import Hello
from moe_comm.kv.limits import KvLimits
from moe_comm.kv.model_digest import model_digest
from moe_comm.kv.number_types import WIRE_TYPES

from moe_serve.bring_up import Meeting
from moe_serve.build import Rank
from moe_serve.control.addresses import bind_address, reachable_addresses
from moe_serve.control.together import together
from moe_serve.control.world import LaunchedWorld
from moe_serve.kv_ways import KvEnd, partners, prefills, ways
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.engine import Engine
from moe_serve.step.follower import Follower
from moe_serve.step.group_mail import GroupMail
from moe_serve.step.handover import Handover
from moe_serve.step.kv_part import KvMember, KvPart
from moe_serve.step.kv_peers import KvPeers
from moe_serve.step.kv_receiver import KvReceiver
from moe_serve.step.kv_receiving_part import ReceivingPart
from moe_serve.step.kv_sender import KvSender
from moe_serve.step.kv_sending_part import SendingPart
from moe_serve.weights.config_files import read_config

LIMITS = KvLimits()


def join_kv(rank: Rank, meeting: Meeting, secret: bytes) -> KvEndpoint | None:
    """Called by all ranks together -> this rank's end, if it has one, for its owner to close.

    Raises:
        AgreedError: two ends do not reach each other, or cannot convert what they hold; the same
            on every rank.
    """
    if not rank.prefill_ranks:
        return None
    launch, exchange = meeting.launch, meeting.exchange
    endpoint = together(exchange, partial(_listen, rank, launch, secret))
    told = exchange.allgather_bytes(_announcement(rank, launch, endpoint))
    ends = {
        number: msgspec.json.decode(each, type=KvEnd) for number, each in enumerate(told) if each
    }
    # One side after the other: who is refused says why before the other side only misses it.
    for turn in (True, False):
        mine = endpoint if prefills(rank, launch.rank) == turn else None
        together(exchange, partial(_meet, rank, launch.rank, mine, ends))
    return endpoint


def _listen(rank: Rank, launch: LaunchedWorld, secret: bytes) -> KvEndpoint | None:
    if rank.kv is None:
        return None
    return KvEndpoint(_hello(rank, launch.rank), secret, host=bind_address(launch), limits=LIMITS)


def _announcement(rank: Rank, launch: LaunchedWorld, endpoint: KvEndpoint | None) -> bytes:
    """Nothing where there is no end."""
    if endpoint is None:
        return b""
    addresses = reachable_addresses(endpoint.port, launch)
    return msgspec.json.encode(KvEnd(_hello(rank, launch.rank), addresses))


def _meet(rank: Rank, number: int, endpoint: KvEndpoint | None, ends: Mapping[int, KvEnd]) -> None:
    """Meet the other side, and have the engine hand over through this end."""
    if endpoint is None:
        return
    found = partners(rank, number, ends)
    names = {
        leader: tuple(ends[other].hello.name for other in others)
        for leader, others in found.items()
    }
    called = {other: ends[other] for others in found.values() for other in others}
    # Those that prefill call.
    own_ways = ways(rank.config, number, called) if prefills(rank, number) else {}
    peers = KvPeers(endpoint, own_ways)
    peers.meet([name for each in names.values() for name in each], LIMITS.connect_seconds)
    _hand_over(rank, number, endpoint, peers, names)


def _hand_over(
    rank: Rank,
    number: int,
    endpoint: KvEndpoint,
    peers: KvPeers,
    names: Mapping[int, tuple[str, ...]],
) -> None:
    engine, kv = rank.engine, rank.kv
    assert kv is not None and isinstance(engine, Engine | Follower)
    mail = GroupMail(kv.shard.index, kv.shard.count)
    part: KvPart
    lead: Callable[[Scheduler], Handover]
    if prefills(rank, number):
        part = sending = SendingPart(endpoint, peers, kv, names)
        lead = partial(KvSender, sending, mail)
    else:
        part = receiving = ReceivingPart(endpoint, peers, kv, names)
        lead = partial(KvReceiver, receiving, mail, LIMITS.idle_seconds)
    if isinstance(engine, Follower):
        engine.hand_over(KvMember(part, mail))
    else:
        engine.hand_over(lead)


def _name(rank: Rank, number: int) -> str:
    return f"{rank.config.pool_of(number).name}:{number}"


def _hello(rank: Rank, number: int) -> Hello:
    model, kv = rank.config.models[0], rank.kv
    assert kv is not None
    # The cache's own type first: it loses nothing.
    wire_types = (model.dtype, *(each for each in WIRE_TYPES if each != model.dtype))
    return Hello(
        name=_name(rank, number),
        model_name=model.name,
        model_digest=model_digest(model.name, read_config(Path(model.path))),
        layers=kv.layers,
        rank=kv.shard.index,
        num_ranks=kv.shard.count,
        cache_type=model.dtype,
        sends=wire_types if prefills(rank, number) else (),
        receives=() if prefills(rank, number) else wire_types,
        page_size=rank.config.cache.page_size,
        rotary_order=kv.rotary_order,
    )
