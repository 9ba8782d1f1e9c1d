"""A whole server of several models in one process: its only rank in a thread."""

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from slice_clients import ADMIN_HEADERS, slices_config
from starlette.applications import Starlette

from moe_serve.bring_up import Meeting, meet
from moe_serve.config.fields import build
from moe_serve.config.tree import Config
from moe_serve.control.meeting.world import launched_world
from moe_serve.control.requests.link import RankLink
from moe_serve.control.requests.remote_engine import RemoteEngine
from moe_serve.control.requests.router import Router
from moe_serve.control.requests.slice_keeper import SliceKeeper
from moe_serve.edge.app import create_app
from moe_serve.edge.auth import read_keys
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.service import Service
from moe_serve.hosting import Host, host_models, no_plan
from moe_serve.step.changes import TenantChanges
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.step.expert_moves import ExpertMover
from moe_serve.step.tenants import Tenants
from moe_serve.step.worker import Worker

_SECRET = b"0123456789abcdef"
_END_SECONDS = 30.0


class RankThread(threading.Thread):
    """The serving loop of a rank that is alone."""

    def __init__(self, host: Host, meeting: Meeting) -> None:
        super().__init__(name="rank", daemon=True)
        self.link = RankLink("127.0.0.1", _SECRET)
        self.tenants = Tenants(0, host.config.scheduler.max_step, host.tenants)
        self.failure: BaseException | None = None
        loader = host.loader
        assert loader is not None
        self._worker = Worker(
            0,
            self.tenants,
            TenantChanges(0, self.tenants, loader.load, loader.settle, loader.dismiss),
            host.exchange,
            self.link,
            meeting.check_peers,
            ExpertCounter((), 0),
            ExpertMover.of_no_experts(0, no_plan(host.config)),
            main_tenant=-1,
        )

    def run(self) -> None:
        try:
            self._worker.run()
        except BaseException as failure:
            self.failure = failure
        finally:
            self._worker.close()
            self.link.close()


@dataclass(frozen=True, slots=True)
class Served:
    """Attributes:
    client: an HTTP client of the server, with the admin key.
    """

    rank: RankThread
    engine: RemoteEngine
    client: httpx.AsyncClient


def config_of(paths: Mapping[str, Path], slices: Mapping[str, Any], folder: Path) -> Config:
    document = slices_config(paths, 1, slices, folder)
    config: Config = build(Config, document, "")
    return config


@asynccontextmanager
async def served(config: Config) -> AsyncIterator[Served]:
    """Serve a config's models until the context ends; the rank must have lived until then."""
    num_threads = torch.get_num_threads()
    meeting = meet(config, launched_world())
    host = host_models(config, meeting)
    rank = RankThread(host, meeting)
    rank.start()
    engine = RemoteEngine(
        [f"tcp://127.0.0.1:{rank.link.port}"],
        _SECRET,
        {tenant.number: _router(config) for tenant in host.tenants},
    )
    transport = httpx.ASGITransport(_app(config, host, engine), raise_app_exceptions=False)
    try:
        await engine.start()
        async with httpx.AsyncClient(
            transport=transport, base_url="http://here", headers=ADMIN_HEADERS, timeout=30
        ) as client:
            yield Served(rank, engine, client)
    finally:
        engine.drain()
        await engine.stop_ranks()
        rank.join(_END_SECONDS)
        engine.close()
        meeting.close()
        torch.set_num_threads(num_threads)
    assert not rank.is_alive() and rank.failure is None, rank.failure


def _app(config: Config, host: Host, engine: RemoteEngine) -> Starlette:
    slices = host.slices
    assert slices is not None

    def keeper(service: Service) -> SliceKeeper:
        return SliceKeeper(config, slices, engine, service, lambda placed: _router(config))

    return create_app(
        engine,
        host.served,
        api_keys=frozenset(),
        metrics=Metrics(engine),
        slices=keeper,
        admin_keys=read_keys(Path(config.server.admin_keys), "server.admin_keys"),
    )


def _router(config: Config) -> Router:
    return Router([1.0], config.cache.page_size, config.scheduler.max_live)
