"""Joins the ranks that prefill to those that decode, once all of them are loaded."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.hello import Hello
from moe_comm.kv.limits import KvLimits
from moe_comm.kv.model_digest import model_digest
from moe_comm.kv.number_types import WIRE_TYPES

from moe_serve.bring_up import Meeting
from moe_serve.build import Rank
from moe_serve.control.addresses import bind_address, first_reachable, reachable_addresses
from moe_serve.control.together import together
from moe_serve.control.world import LaunchedWorld
from moe_serve.step.engine import Engine
from moe_serve.step.kv_peers import KvPeers
from moe_serve.step.kv_receiver import KvReceiver
from moe_serve.step.kv_sender import KvSender
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
    own = reachable_addresses(endpoint.port, launch) if endpoint else ""
    addresses = [each.decode() for each in exchange.allgather_bytes(own.encode())]
    # One side after the other: who is refused says why before the other side only misses it.
    for turn in (rank.prefill_ranks, rank.homes):
        mine = endpoint if launch.rank in turn else None
        together(exchange, partial(_meet, rank, launch.rank, mine, addresses))
    return endpoint


def _listen(rank: Rank, launch: LaunchedWorld, secret: bytes) -> KvEndpoint | None:
    if launch.rank not in (*rank.homes, *rank.prefill_ranks):
        return None
    return KvEndpoint(_hello(rank, launch.rank), secret, host=bind_address(launch), limits=LIMITS)


def _meet(rank: Rank, number: int, endpoint: KvEndpoint | None, addresses: Sequence[str]) -> None:
    """Meet the other side, and have the engine hand over through this end."""
    if endpoint is None:
        return
    engine, kv = rank.engine, rank.kv
    assert isinstance(engine, Engine) and kv is not None
    prefills = number in rank.prefill_ranks
    others = rank.homes if prefills else rank.prefill_ranks
    names = {other: _name(rank, other) for other in others}
    # Those that prefill call.
    called = {names[other]: _reached(addresses[other]) for other in others if prefills}
    peers = KvPeers(endpoint, called)
    peers.meet(names.values(), LIMITS.connect_seconds)
    if prefills:
        engine.hand_over(lambda scheduler: KvSender(endpoint, peers, scheduler, kv, names))
    else:
        seconds = LIMITS.idle_seconds
        engine.hand_over(
            lambda scheduler: KvReceiver(endpoint, peers, scheduler, kv, names, seconds)
        )


def _name(rank: Rank, number: int) -> str:
    return f"{rank.config.pool_of(number).name}:{number}"


def _reached(endpoints: str) -> str:
    return first_reachable(endpoints).removeprefix("tcp://")


def _hello(rank: Rank, number: int) -> Hello:
    model, kv = rank.config.models[0], rank.kv
    assert kv is not None
    prefills = number in rank.prefill_ranks
    # The cache's own type first: it loses nothing.
    wire_types = (model.dtype, *(each for each in WIRE_TYPES if each != model.dtype))
    return Hello(
        name=_name(rank, number),
        model_name=model.name,
        model_digest=model_digest(model.name, read_config(Path(model.path))),
        layers=kv.layers,
        cache_type=model.dtype,
        sends=wire_types if prefills else (),
        receives=() if prefills else wire_types,
        page_size=rank.config.cache.page_size,
        rotary_order=kv.rotary_order,
    )
