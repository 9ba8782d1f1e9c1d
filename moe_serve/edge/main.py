"""The front-end process: HTTP in front, the ranks' sockets behind; started by rank 0."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from moe_placement.load.trace_file import save

from moe_serve.control.balancing.balancer import Balancer
from moe_serve.control.balancing.expert_load import ExpertLoadRecord
from moe_serve.control.balancing.plan_status import PlanStatus
from moe_serve.control.requests.front_end import DRAIN, FrontEndStart
from moe_serve.control.requests.remote_engine import RemoteEngine
from moe_serve.control.requests.router import Router
from moe_serve.control.requests.slice_keeper import SliceKeeper
from moe_serve.edge.app import MakeKeeper, create_app
from moe_serve.edge.auth import read_keys, warn_if_exposed
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.server import run_server
from moe_serve.edge.service import Service
from moe_serve.errors import MoeServeError
from moe_serve.even_steps import even_steps
from moe_serve.messages import ALL_RANKS

logger = logging.getLogger(__name__)

_USER_ERROR = 2
_RANKS_ARE_GONE = 1
_FAREWELL_SECONDS = 2.0


def main(listener: int, complaints: int) -> int:
    """
    Args:
        listener: file descriptor of the listening socket.
        complaints: where to write why this process cannot go on.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s front end: %(message)s")
    # mpirun binds rank 0, and so this child, to its cores.
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        return asyncio.run(_serve(socket.socket(fileno=listener)))
    except MoeServeError as error:
        os.write(complaints, str(error).encode())
        return _USER_ERROR


async def _serve(listener: socket.socket) -> int:
    draining = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, draining.set)
    lines = await _standard_input()
    line = await lines.readline()
    if not line:
        return _RANKS_ARE_GONE
    start = msgspec.json.decode(line, type=FrontEndStart)
    served = start.deployment
    record = ExpertLoadRecord(served.plan)
    engine = RemoteEngine(start.addresses, start.secret, _routers(start), record)
    balancer = Balancer(served, record, engine)
    plan = PlanStatus(served, record, engine, balancer)
    keys = _keys(start.config.server.api_keys, "server.api_keys")
    if not keys:
        warn_if_exposed(listener.getsockname()[0])
    app = create_app(
        engine,
        start.models,
        api_keys=keys,
        metrics=Metrics(engine),
        plan=plan.values,
        slices=_keeper(start, engine),
        admin_keys=_keys(start.config.server.admin_keys, "server.admin_keys"),
    )
    even_steps()
    lifeline = asyncio.create_task(_follow(lines, draining.set))
    exit_server = asyncio.Event()
    server = asyncio.create_task(run_server(app, listener, exit_server))
    code = await _until_drained_or_dead(engine, balancer, start.url, draining, lifeline, server)
    _save(record, served.config.placement.record)
    exit_server.set()
    # Without ranks there is nothing to wait for but that the clients hear of it.
    await asyncio.wait({server}, timeout=_FAREWELL_SECONDS if code == _RANKS_ARE_GONE else None)
    engine.close()
    return code


def _keys(path: str, key: str) -> frozenset[str]:
    return read_keys(Path(path), key) if path else frozenset()


def _routers(start: FrontEndStart) -> dict[int, Router]:
    if start.slices is None:
        return {0: _router(start, ALL_RANKS)}
    return {each.number: _router(start, each.rank) for each in start.slices.tenants}


def _router(start: FrontEndStart, rank: int) -> Router:
    """Of the requests to a model that is on one rank, or on all of them."""
    if rank == ALL_RANKS:
        return Router(
            start.rank_weights,
            start.block_size,
            start.max_live,
            start.prefill_ranks,
            start.max_local_prefill,
        )
    weights = [float(other == rank) for other in range(len(start.addresses))]
    return Router(weights, start.block_size, start.max_live)


def _keeper(start: FrontEndStart, engine: RemoteEngine) -> MakeKeeper | None:
    slices = start.slices
    if slices is None:
        return None

    def make(service: Service) -> SliceKeeper:
        return SliceKeeper(
            start.config, slices, engine, service, lambda placed: _router(start, placed.rank)
        )

    return make


async def _until_drained_or_dead(
    engine: RemoteEngine,
    balancer: Balancer,
    url: str,
    draining: asyncio.Event,
    lifeline: "asyncio.Task[None]",
    server: "asyncio.Task[None]",
) -> int:
    starting = asyncio.create_task(engine.start())
    await asyncio.wait({starting, lifeline, server}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        print(f"ready {url}", flush=True)
    balancing = asyncio.create_task(balancer.run())
    wish = asyncio.create_task(draining.wait())
    guard = asyncio.create_task(engine.guard())
    await asyncio.wait({wish, lifeline, server, guard}, return_when=asyncio.FIRST_COMPLETED)
    for task in (server, guard):
        if task.done():
            # Neither ends before it is told to, but by an error: better dead than deaf. Whoever
            # waits for the ranks is to end too.
            engine.fail("the server's front end failed; the request cannot go on")
            task.result()
    engine.drain()
    balancing.cancel()
    await asyncio.wait({balancing})
    while engine.num_live and not lifeline.done():
        await asyncio.wait({lifeline}, timeout=0.05)
    if lifeline.done():
        engine.fail("a rank of the engine died; the request cannot go on")
        return _RANKS_ARE_GONE
    await engine.stop_ranks()
    return 0


def _save(record: ExpertLoadRecord, path: str) -> None:
    load = record.trace()
    if not path or load is None:
        return
    try:
        save(load, Path(path))
    except OSError as error:
        logger.error("placement.record: cannot write %s: %s", path, error.strerror)


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 26)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


async def _follow(lines: asyncio.StreamReader, drain: Callable[[], None]) -> None:
    """Ends with rank 0's life."""
    while line := await lines.readline():
        if line.strip() == DRAIN:
            drain()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
