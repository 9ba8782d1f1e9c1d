"""Loads, unloads and resizes served models while the server runs, one change after the other."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from moe_serve.config.tree import Config, ModelConfig
from moe_serve.config.validate import MAX_MODELS
from moe_serve.control.model_json import check_has_weights
from moe_serve.control.router import Router
from moe_serve.control.slices import SlicePlan
from moe_serve.control.tenant_view import candidate_of
from moe_serve.errors import ConfigError, MoeServeError, PlacementError, UnknownModelError
from moe_serve.messages import (
    ALL_RANKS,
    PlacedTenant,
    RankStats,
    TenantChange,
    TenantNews,
)
from moe_serve.types import ServedModel

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.02
_MIB = 1 << 20
Kind = Literal["load", "unload", "resize"]


class Engine(Protocol):
    """What is asked of the ranks."""

    async def change_tenants(self, change: TenantChange) -> list[TenantNews]: ...

    def open_tenant(self, number: int, router: Router) -> None: ...

    def close_tenant(self, number: int) -> None: ...

    def live_requests(self, tenant: int) -> list[str]: ...

    def abort(self, request_id: str) -> None: ...

    def stats(self) -> Sequence[RankStats]: ...


class Shelf(Protocol):
    """Where the HTTP edge finds the models that it serves."""

    async def add(self, number: int, served: ServedModel) -> None:
        """Raise CheckpointError where it has no tokenizer that can be read."""
        ...

    def remove(self, number: int) -> None: ...


class SliceKeeper:
    """
    Args:
        config: not resolved.
        make_router: of requests to a tenant, by where it is.
    """

    def __init__(
        self,
        config: Config,
        slices: SlicePlan,
        engine: Engine,
        shelf: Shelf,
        make_router: Callable[[PlacedTenant], Router],
    ) -> None:
        self._config = config
        self._slices = slices
        self._engine = engine
        self._shelf = shelf
        self._make_router = make_router
        self._number = 0
        self._lock = asyncio.Lock()

    async def load(self, model: ModelConfig) -> dict[str, Any]:
        """Serve one model more -> as `values` has it.

        Raises:
            MoeServeError: why not; then nothing has changed.
        """
        async with self._lock:
            check_has_weights(model)
            candidate = await asyncio.to_thread(candidate_of, self._config, model)
            self._check_name(candidate.model.name)
            number = self._free_number()
            before = self._slices
            slices = before.with_models([candidate.model], [candidate.need], [number])
            placed = slices.tenant(number)
            try:
                served = _served(await self._change("load", placed))
                await self._shelf.add(number, served)
            except MoeServeError:
                await self._change("unload", placed)
                raise
            self._slices = slices
            self._engine.open_tenant(number, self._make_router(placed))
            return self._values(placed)

    async def unload(self, name: str, grace: float) -> None:
        """Serve a model no longer.

        Args:
            grace: seconds for its live requests to end; those that have not are aborted.

        Raises:
            UnknownModelError: there is none of that name.
        """
        async with self._lock:
            placed = self._find(name)
            self._shelf.remove(placed.number)
            await self._drain(placed.number, grace)
            await self._change("unload", placed)
            self._engine.close_tenant(placed.number)
            self._slices = self._slices.without(placed.number)

    async def resize(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Give a model another slice -> as `values` has it.

        Args:
            asked: fields of a SliceConfig; the others stay.

        Raises:
            MoeServeError: why not; then nothing has changed.
        """
        async with self._lock:
            placed = self._find(name)
            asked_slice = replace(placed.model.slice, **asked)
            slices = self._slices.resized(placed.number, asked_slice)
            resized = slices.tenant(placed.number)
            try:
                _check(await self._change("resize", resized))
            except MoeServeError:
                await self._change("resize", placed)
                raise
            self._slices = slices
            return self._values(resized)

    def values(self) -> dict[str, Any]:
        """All slices, for JSON."""
        taken = [sum(each.memory for each in self._slices.on(rank)) for rank in self._ranks]
        return {
            "object": "list",
            "data": [self._values(each) for each in self._slices.tenants],
            "ranks": [
                {
                    "rank": rank,
                    "memory_mb": self._slices.budgets[rank] // _MIB,
                    "free_memory_mb": (self._slices.budgets[rank] - taken[rank]) // _MIB,
                    "free_compute_percent": round(100 * self._slices.free_share(rank), 6),
                }
                for rank in self._ranks
            ],
        }

    @property
    def _ranks(self) -> range:
        return range(len(self._slices.budgets))

    async def _change(self, kind: Kind, placed: PlacedTenant) -> list[TenantNews]:
        self._number += 1
        logger.info("%s model %s: begun", kind, placed.model.name)
        news = await self._engine.change_tenants(
            TenantChange(number=self._number, kind=kind, placed=placed)
        )
        logger.info("%s model %s: done", kind, placed.model.name)
        return news

    async def _drain(self, number: int, grace: float) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + grace
        while self._engine.live_requests(number) and loop.time() < ends:
            await asyncio.sleep(_LOOK_SECONDS)
        for request_id in self._engine.live_requests(number):
            self._engine.abort(request_id)
        while self._engine.live_requests(number):
            await asyncio.sleep(_LOOK_SECONDS)

    def _find(self, name: str) -> PlacedTenant:
        for placed in self._slices.tenants:
            if placed.model.name == name:
                return placed
        served = ", ".join(each.model.name for each in self._slices.tenants)
        raise UnknownModelError(f"no model {name!r}; this server has {served}", "model")

    def _check_name(self, name: str) -> None:
        if any(each.model.name == name for each in self._slices.tenants):
            raise ConfigError(f"name: a model {name!r} is served already; give this one another")

    def _free_number(self) -> int:
        numbers = {each.number for each in self._slices.tenants}
        free = next((number for number in range(MAX_MODELS) if number not in numbers), None)
        if free is None:
            raise PlacementError(f"{MAX_MODELS} models are served, and no more can be; unload one")
        return free

    def _values(self, placed: PlacedTenant) -> dict[str, Any]:
        used = [
            (rank.plan_rank, each)
            for rank in self._engine.stats()
            for each in rank.slices
            if each.tenant == placed.number
        ]
        return {
            "id": placed.model.name,
            "object": "slice",
            "rank": "all" if placed.rank == ALL_RANKS else placed.rank,
            "compute_percent": round(100 * placed.share, 6),
            "memory_mb": placed.memory // _MIB,
            "mode": placed.model.slice.mode,
            "isolate": placed.model.slice.isolate,
            "used": [
                {
                    "rank": rank,
                    "seconds": stats.seconds,
                    "lifetime": stats.lifetime,
                    "memory_bytes": stats.memory,
                    "running": stats.num_running,
                    "waiting": stats.num_waiting,
                }
                for rank, stats in used
            ],
        }


def _check(news: Sequence[TenantNews]) -> None:
    error = next((each.error for each in news if each.error), "")
    if error:
        raise PlacementError(error)


def _served(news: Sequence[TenantNews]) -> ServedModel:
    _check(news)
    return next(each.served for each in news if each.served is not None)
