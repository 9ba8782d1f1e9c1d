"""`moe_serve` as a server: the ranks meet, load, and serve until they agree to stop."""

import secrets
import signal
import socket
from collections.abc import Callable
from functools import partial

from moe_comm.transport.exchange import PeerLostError

from moe_serve.bring_up import Meeting, meet
from moe_serve.build import Rank, build_rank
from moe_serve.config.tree import Config
from moe_serve.control.addresses import bind_address, reachable_addresses
from moe_serve.control.balance import ServedDeployment
from moe_serve.control.drain import DrainSignals
from moe_serve.control.front_end import FrontEnd, FrontEndStart
from moe_serve.control.link import RankLink
from moe_serve.control.rank_weights import rank_weights
from moe_serve.control.together import together
from moe_serve.control.world import LaunchedWorld
from moe_serve.errors import EngineDeadError
from moe_serve.kv_join import join_kv
from moe_serve.step.changes import no_changes
from moe_serve.step.tenants import Tenants
from moe_serve.step.worker import Worker
from moe_serve.survive.regroup import Survivor
from moe_serve.survive.welcome import read_welcome, welcome_of

_SECRET_BYTES = 32


def serve(
    config: Config,
    launch: LaunchedWorld,
    listener: socket.socket | None,
    drain_signals: DrainSignals,
) -> int:
    """Serve until drained; the exit code.

    Args:
        listener: the HTTP socket on rank 0, None on the others.

    Raises:
        MoeServeError: why the ranks cannot form a server, or cannot go on as one.
    """
    try:
        meeting = meet(config, launch)
        front_end = FrontEnd(listener) if listener is not None else None
        _serve(config, meeting, listener, front_end, drain_signals)
        meeting.close()
    except PeerLostError as error:
        raise EngineDeadError(str(error)) from error
    return 0


def _serve(
    config: Config,
    meeting: Meeting,
    listener: socket.socket | None,
    front_end: FrontEnd | None,
    drain_signals: DrainSignals,
) -> None:
    launch, exchange = meeting.launch, meeting.exchange
    welcome = read_welcome(launch)
    rank = build_rank(config, meeting, welcome.memories if welcome else None)
    fresh = exchange.allgather_bytes(secrets.token_bytes(_SECRET_BYTES))[0]
    secret = welcome.secret if welcome else fresh
    # Pools of experts alone, which have no keys and values, are all that come back.
    kv_end = None if welcome else join_kv(rank, meeting, secret)
    link = together(exchange, lambda: RankLink(bind_address(launch), secret))
    address = reachable_addresses(link.port, launch)
    addresses = exchange.allgather_bytes(address.encode())
    meeting.follow_peers(welcome_of(rank.deployment, secret))
    watch: Callable[[], None] = meeting.check_peers
    if front_end is not None and listener is not None:
        front_end.start(_message(rank, listener, secret, addresses))
        listener.close()
        # Under mpirun SIGTERM and SIGINT are mpirun's to act on.
        also = () if launch.is_launched else (signal.SIGTERM, signal.SIGINT)
        drain_signals.act(front_end.drain, also)
        watch = partial(_look_at_all, front_end, meeting)
    load, mover = rank.loaded.load, rank.loaded.mover
    go_on = Survivor(meeting, rank.parts, rank.loaded, address).go_on
    tenants = Tenants.of_one(launch.rank, rank.engine)
    changes = no_changes(launch.rank, tenants)
    worker = Worker(launch.rank, tenants, changes, rank.exchange, link, watch, load, mover, go_on)
    worker.run(comes_back=meeting.comes_back)
    link.close()
    if kv_end is not None:
        kv_end.close()
    if front_end is not None:
        front_end.finish()


def _look_at_all(front_end: FrontEnd, meeting: Meeting) -> None:
    """What plan rank 0 does now and then."""
    front_end.watch()
    meeting.check_peers()


def _message(
    rank: Rank, listener: socket.socket, secret: bytes, addresses: list[bytes]
) -> FrontEndStart:
    config = rank.config
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return FrontEndStart(
        url=f"http://{name}:{port}",
        models=(rank.served,),
        addresses=tuple(address.decode() for address in addresses),
        secret=secret,
        rank_weights=rank_weights(config, rank.deployment, rank.homes),
        prefill_ranks=rank.prefill_ranks,
        max_local_prefill=config.scheduler.max_local_prefill,
        block_size=config.cache.page_size if config.cache.prefix else 0,
        max_live=config.scheduler.max_live,
        api_keys=config.server.api_keys,
        deployment=ServedDeployment(
            config=config,
            plan=rank.deployment.plan,
            memories=rank.deployment.memories,
            reasons=rank.deployment.reasons,
        ),
    )
