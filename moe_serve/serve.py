"""`moe_serve` as a server: the ranks meet, load, and serve until they agree to stop."""

import secrets
import signal
import socket
from collections.abc import Callable

from moe_comm.transport.exchange import PeerLostError

from moe_serve.bring_up import Meeting, meet, together
from moe_serve.build import Rank, build_rank
from moe_serve.config.tree import Config
from moe_serve.control.addresses import bind_address, reachable_addresses
from moe_serve.control.front_end import FrontEnd, FrontEndStart, listen
from moe_serve.control.link import RankLink
from moe_serve.control.world import LaunchedWorld
from moe_serve.errors import EngineDeadError
from moe_serve.step.worker import Worker

_SECRET_BYTES = 32


def serve(config: Config, launch: LaunchedWorld) -> int:
    """Serve until drained; the exit code.

    Raises:
        MoeServeError: why the ranks cannot form a server, or cannot go on as one.
    """
    # mpirun forwards SIGUSR1 to every rank; rank 0 alone acts on it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    listener = listen(config.server.host, config.server.port) if launch.rank == 0 else None
    try:
        meeting = meet(config, launch)
        front_end = FrontEnd(listener) if listener is not None else None
        _serve(config, meeting, listener, front_end)
        meeting.close()
    except PeerLostError as error:
        raise EngineDeadError(str(error)) from error
    return 0


def _serve(
    config: Config,
    meeting: Meeting,
    listener: socket.socket | None,
    front_end: FrontEnd | None,
) -> None:
    launch, exchange = meeting.launch, meeting.exchange
    rank = build_rank(config, meeting)
    secret = exchange.allgather_bytes(secrets.token_bytes(_SECRET_BYTES))[0]
    link = together(exchange, lambda: RankLink(bind_address(launch), secret))
    addresses = exchange.allgather_bytes(reachable_addresses(link.port, launch).encode())
    watch: Callable[[], None] = lambda: None  # noqa: E731
    if front_end is not None and listener is not None:
        front_end.start(_message(rank, listener, secret, addresses))
        listener.close()
        _drain_on_signals(front_end, launch)
        watch = front_end.watch
    Worker(launch.rank, rank.engine, rank.exchange, link, watch).run()
    link.close()
    if front_end is not None:
        front_end.finish()


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
        max_live=config.scheduler.max_sequences + config.scheduler.max_waiting,
        api_keys=config.server.api_keys,
    )


def _drain_on_signals(front_end: FrontEnd, launch: LaunchedWorld) -> None:
    """SIGUSR1 drains; under mpirun SIGTERM and SIGINT are mpirun's to act on."""
    signals = [signal.SIGUSR1]
    if not launch.is_launched:
        signals += [signal.SIGTERM, signal.SIGINT]
    for number in signals:
        signal.signal(number, lambda *_: front_end.drain())
