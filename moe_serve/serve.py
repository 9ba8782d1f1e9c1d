"""`moe_serve` as a server: the ranks meet, load, and serve until they agree to stop."""

import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from moe_comm.transport.exchange import PeerLostError

from moe_serve.bring_up import Meeting, meet
from moe_serve.config.tree import Config
from moe_serve.control.balancing.balance import ServedDeployment
from moe_serve.control.meeting.addresses import bind_address, reachable_addresses
from moe_serve.control.meeting.together import together
from moe_serve.control.meeting.world import LaunchedWorld
from moe_serve.control.planning.rank_weights import equal_weights, rank_weights
from moe_serve.control.requests.drain import DrainSignals
from moe_serve.control.requests.front_end import FrontEnd, FrontEndStart
from moe_serve.control.requests.link import RankLink
from moe_serve.errors import EngineDeadError
from moe_serve.even_steps import even_steps
from moe_serve.hosting import Host, host_models, no_plan
from moe_serve.kv_join import KvJoin, join_kv
from moe_serve.step.changes import TenantChanges, no_changes
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.expert_moves import ExpertMover
from moe_serve.step.tenants import Tenants
from moe_serve.step.worker import Worker
from moe_serve.survive.regroup import Survivor
from moe_serve.survive.welcome import read_welcome

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
        ready = _bring_up(config, meeting, listener, front_end, drain_signals)
        even_steps()
        ready.run(comes_back=meeting.comes_back)
        if front_end is not None:
            front_end.finish()
        meeting.close()
    except PeerLostError as error:
        raise EngineDeadError(str(error)) from error
    return 0


@dataclass(frozen=True, slots=True)
class _Ready:
    """A rank that can serve. What its models were made of is forgotten: they may be unloaded.

    Attributes:
        device: where the serving loop computes.
        kv: None where no keys and values are handed over.
    """

    worker: Worker
    link: RankLink
    device: AbstractContextManager[None]
    kv: KvJoin | None

    def run(self, *, comes_back: bool) -> None:
        with self.device:
            self.worker.run(comes_back=comes_back)
        self.worker.close()
        self.link.close()
        if self.kv is not None:
            self.kv.close()


def _bring_up(
    config: Config,
    meeting: Meeting,
    listener: socket.socket | None,
    front_end: FrontEnd | None,
    drain_signals: DrainSignals,
) -> _Ready:
    launch, exchange = meeting.launch, meeting.exchange
    welcome = read_welcome(launch)
    host = host_models(config, meeting, welcome)
    main = host.main
    fresh = exchange.allgather_bytes(secrets.token_bytes(_SECRET_BYTES))[0]
    secret = welcome.secret if welcome else fresh
    kv = None
    if main is not None:
        kv = join_kv(main, meeting, secret, welcome.kv_ends if welcome else {})
    link = together(exchange, lambda: RankLink(bind_address(launch), secret))
    address = reachable_addresses(link.port, launch)
    addresses = exchange.allgather_bytes(address.encode())
    survivor = None
    if main is not None and host.loader is None:
        survivor = Survivor(meeting, main.parts, main.loaded, address, kv, secret)
    meeting.follow_peers(survivor.welcome if survivor else bytes)
    watch: Callable[[], None] = meeting.check_peers
    if front_end is not None and listener is not None:
        front_end.start(_message(host, listener, secret, addresses))
        listener.close()
        # Under mpirun SIGTERM and SIGINT are mpirun's to act on.
        also = () if launch.is_launched else (signal.SIGTERM, signal.SIGINT)
        drain_signals.act(front_end.drain, also)
        watch = partial(_look_at_all, front_end, meeting)
    worker = _worker(host, meeting, link, survivor, watch)
    return _Ready(worker, link, host.use_device(), kv)


def _worker(
    host: Host,
    meeting: Meeting,
    link: RankLink,
    survivor: Survivor | None,
    watch: Callable[[], None],
) -> Worker:
    main, number = host.main, meeting.launch.rank
    has_slices = host.loader is not None
    max_step = host.config.scheduler.max_step
    tenants = Tenants(number, max_step, host.tenants, has_slices=has_slices)
    changes = no_changes(number, tenants)
    load, mover = ExpertCounter((), 0), ExpertMover.of_no_experts(number, no_plan(host.config))
    if main is not None:
        load, mover = main.loaded.load, main.loaded.mover
    if host.loader is not None:
        loader = host.loader
        changes = TenantChanges(number, tenants, loader.load, loader.settle, loader.dismiss)
    return Worker(
        number,
        tenants,
        changes,
        host.exchange,
        link,
        watch,
        load,
        mover,
        survivor.go_on if survivor else None,
        meeting.part,
        main_tenant=host.main_tenant,
    )


def _look_at_all(front_end: FrontEnd, meeting: Meeting) -> None:
    """What plan rank 0 does now and then."""
    front_end.watch()
    meeting.check_peers()


def _message(
    host: Host, listener: socket.socket, secret: bytes, addresses: list[bytes]
) -> FrontEndStart:
    config, main = host.config, host.main
    interface, port = listener.getsockname()[:2]
    name = f"[{interface}]" if ":" in interface else interface
    if main is None:
        plan = no_plan(config)
        weights = equal_weights(config, plan)
        deployment = ServedDeployment(config=config, plan=plan, memories=(), reasons=())
    else:
        weights = rank_weights(main.config, main.deployment, main.homes)
        deployment = ServedDeployment(
            config=main.config,
            plan=main.deployment.plan,
            memories=main.deployment.memories,
            reasons=main.deployment.reasons,
        )
    return FrontEndStart(
        url=f"http://{name}:{port}",
        models=host.served,
        addresses=tuple(address.decode() for address in addresses),
        secret=secret,
        rank_weights=weights,
        prefill_ranks=main.prefill_ranks if main else (),
        max_local_prefill=config.scheduler.max_local_prefill,
        block_size=config.cache.page_size if config.cache.prefix else 0,
        max_live=config.scheduler.max_live,
        deployment=deployment,
        config=config,
        slices=host.slices,
    )
