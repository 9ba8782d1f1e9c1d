"""Joins the ranks that prefill to those that decode, once all of them are loaded."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
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
from moe_serve.config.tree import Config
from moe_serve.control.meeting.addresses import bind_address, reachable_addresses
from moe_serve.control.meeting.together import together
from moe_serve.control.meeting.world import LaunchedWorld
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


@dataclass(frozen=True, slots=True)
class KvJoin:
    """One rank's part in the handovers of its server.

    Attributes:
        own: its end as it announces itself to the others; empty where it has none.
        ends: so announced, of all ranks that have one.
        endpoint: None where it has no end.
        find: called with a rank whose end is another one now, and has called this one.
    """

    own: bytes
    ends: Mapping[int, bytes]
    endpoint: KvEndpoint | None = None
    find: Callable[[int, KvEnd], None] = lambda number, end: None

    def update(self, ends: Mapping[int, bytes]) -> "KvJoin":
        """Ranks are there again, of which some have other ends."""
        for number, end in ends.items():
            if end != self.ends.get(number):
                self.find(number, _decoded(end))
        return replace(self, ends={**self.ends, **ends})

    def close(self) -> None:
        if self.endpoint is not None:
            self.endpoint.close()


def join_kv(
    rank: Rank, meeting: Meeting, secret: bytes, known: Mapping[int, bytes]
) -> KvJoin | None:
    """Called by all ranks together, or by all those together that come back; None where nobody
    hands over anything.

    Args:
        known: ends of the ranks that serve already, as they announced themselves.

    Raises:
        AgreedError: two ends do not reach each other, or cannot convert what they hold; the same
            on every rank.
    """
    if not rank.prefill_ranks:
        return None
    launch, exchange = meeting.launch, meeting.exchange
    endpoint = together(exchange, partial(_listen, rank, launch, secret))
    own = _announcement(rank, launch, endpoint)
    told = zip(meeting.ranks, exchange.allgather_bytes(own), strict=True)
    ends = {**known, **{number: each for number, each in told if each}}
    joined = KvJoin(own, ends)
    # One side after the other: who is refused says why before the other side only misses it.
    for turn in (True, False):
        mine = endpoint if prefills(rank, launch.rank) == turn else None
        find = together(exchange, partial(_meet_those_there, rank, meeting, mine, ends))
        if mine is not None and find is not None:
            joined = KvJoin(own, ends, mine, find)
    return joined


def _decoded(end: bytes) -> KvEnd:
    return msgspec.json.decode(end, type=KvEnd)


def _listen(rank: Rank, launch: LaunchedWorld, secret: bytes) -> KvEndpoint | None:
    if rank.kv is None:
        return None
    hello, limits = _hello(rank, launch.rank), _limits(rank.config)
    return KvEndpoint(hello, secret, host=bind_address(launch), limits=limits)


def _limits(config: Config) -> KvLimits:
    return KvLimits(silence_seconds=config.world.deadline)


def _announcement(rank: Rank, launch: LaunchedWorld, endpoint: KvEndpoint | None) -> bytes:
    """Nothing where there is no end."""
    if endpoint is None:
        return b""
    addresses = reachable_addresses(endpoint.port, launch)
    return msgspec.json.encode(KvEnd(_hello(rank, launch.rank), addresses))


def _meet_those_there(
    rank: Rank, meeting: Meeting, endpoint: KvEndpoint | None, ends: Mapping[int, bytes]
) -> Callable[[int, KvEnd], None] | None:
    """Of the other side those that are not lost; those that come back call whoever serves."""
    if endpoint is None:
        return None
    decoded = {number: _decoded(end) for number, end in ends.items()}
    serving = meeting.there - set(meeting.ranks)
    return _meet(rank, meeting.launch.rank, endpoint, decoded, meeting.there, serving)


def _meet(
    rank: Rank,
    number: int,
    endpoint: KvEndpoint,
    ends: Mapping[int, KvEnd],
    there: Collection[int],
    serving: Collection[int] = (),
) -> Callable[[int, KvEnd], None]:
    """Meet the other side, and have the engine hand over through this end.

    Args:
        ends: by plan rank, also of those that are lost.
        serving: those that wait for no call.

    Returns:
        See KvJoin.find.
    """
    found = partners(rank, number, ends)
    names = {
        leader: tuple(ends[other].hello.name for other in others)
        for leader, others in found.items()
    }
    others = sorted({other for each in found.values() for other in each})
    # Those that prefill call.
    calls = prefills(rank, number)
    met = [other for other in others if other in there]
    called = {other: ends[other] for other in met if calls or other in serving}
    peers = KvPeers(endpoint, ways(rank.config, number, called))
    limits = _limits(rank.config)
    peers.meet([ends[other].hello.name for other in met], limits.connect_seconds)
    _hand_over(rank, number, endpoint, peers, names)

    def find(other: int, end: KvEnd) -> None:
        if calls and other in others:
            ((name, way),) = ways(rank.config, number, {other: end}).items()
            peers.readdress(name, way)

    return find


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
        lead = partial(KvReceiver, receiving, mail, _limits(rank.config).idle_seconds)
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
