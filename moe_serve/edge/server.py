"""uvicorn on a socket that is already bound, stopped from outside."""

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the process's signal handlers alone."""
        yield


async def run_server(
    app: ASGIApp,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    grace_seconds: int = 30,
    max_waiting_connections: int = 2048,
) -> None:
    """Answer on `listener` until `stop` is set, then until open requests have ended.

    Args:
        listener: a bound socket; it is closed at the end.
        grace_seconds: how long open requests may take after `stop`; then they are cancelled.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=max_waiting_connections,
        timeout_graceful_shutdown=grace_seconds,
    )
    server = _Server(config)
    watcher = asyncio.create_task(_exit_on(stop, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()


async def _exit_on(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True
