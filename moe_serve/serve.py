"""`moe_serve` as a server: the ranks meet, load, and serve until they agree to stop."""

import secrets
import signal
import socket
from collections.abc import Callable

from moe_comm.transport.exchange import PeerLostError

from moe_serve.bring_up import Meeting, meet
from moe_serve.build import Rank, build_rank
from moe_serve.config.tree import Config
from moe_serve.control.addresses import bind_address, reachable_addresses
from moe_serve.control.drain import DrainSignals
from moe_serve.control.front_end import FrontEnd, FrontEndStart
from moe_serve.control.link import RankLink
from moe_serve.control.together import together
from moe_serve.control.world import LaunchedWorld
from moe_serve.errors import EngineDeadError
from moe_serve.step.worker import Worker

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
    rank = build_rank(config, meeting)
    secret = exchange.allgather_bytes(secrets.token_bytes(_SECRET_BYTES))[0]
    link = together(exchange, lambda: RankLink(bind_address(launch), secret))
    addresses = exchange.allgather_bytes(reachable_addresses(link.port, launch).encode())
    watch: Callable[[], None] = _look_at_nothing
    if front_end is not None and listener is not None:
        front_end.start(_message(rank, listener, secret, addresses))
        listener.close()
        # Under mpirun SIGTERM and SIGINT are mpirun's to act on.
        also = () if launch.is_launched else (signal.SIGTERM, signal.SIGINT)
        drain_signals.act(front_end.drain, also)
        watch = front_end.watch
    epoch = rank.deployment.plan.epoch
    Worker(launch.rank, rank.engine, rank.exchange, link, watch, epoch).run()
    link.close()
    if front_end is not None:
        front_end.finish()


def _look_at_nothing() -> None:
    """What ranks without a front end of their own do now and then."""


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
        rank_weights=(1.0,) * config.num_ranks,
        page_size=config.cache.page_size,
        max_live=config.scheduler.max_live,
        api_keys=config.server.api_keys,
    )
