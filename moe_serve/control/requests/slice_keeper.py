"""Loads, resizes and unloads served models while the server runs, one after the other."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from moe_serve.config.tree import Config, ModelConfig
from moe_serve.config.validate import MAX_MODELS, check_slice
from moe_serve.control.planning.model_json import check_has_weights
from moe_serve.control.planning.slices import SlicePlan
from moe_serve.control.planning.tenant_view import candidate_of
from moe_serve.control.requests.router import Router
from moe_serve.control.requests.slice_values import slice_value, slices_value
from moe_serve.errors import (
    LeavingModelError,
    MoeServeError,
    PlacementError,
    RankError,
    RequestError,
    TakenNameError,
    UnknownModelError,
)
from moe_serve.messages import Fault, PlacedTenant, RankStats, TenantChange, TenantNews
from moe_serve.types import ServedModel

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.02
Kind = Literal["load", "unload", "resize"]
_ERRORS: Mapping[Fault, type[MoeServeError]] = {
    "model": RequestError,
    "room": PlacementError,
    "rank": RankError,
}


class Engine(Protocol):
    """What is asked of the ranks."""

    async def change_tenants(self, change: TenantChange) -> list[TenantNews]: ...

    def open_tenant(self, number: int, router: Router) -> None: ...

    def end_tenant(self, number: int) -> None: ...

    def close_tenant(self, number: int) -> None: ...

    def live_requests(self, tenant: int) -> list[str]: ...

    def stats(self) -> Sequence[RankStats]: ...


class Shelf(Protocol):
    """Where the HTTP edge finds the models that it serves."""

    async def add(self, number: int, served: ServedModel) -> None:
        """Raise CheckpointError where it has no tokenizer that can be read."""
        ...

    def change(self, number: int, served: ServedModel) -> None: ...

    def remove(self, number: int) -> None: ...

    def is_visited(self, number: int) -> bool:
        """Whether a request that has found the model may still send the engine something."""
        ...


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
        self._num_changes = 0
        self._newest = max((each.number for each in slices.tenants), default=-1)
        self._leaving: set[int] = set()
        self._lock = asyncio.Lock()

    async def load(self, model: ModelConfig) -> dict[str, Any]:
        """Serve one model more -> as `values` has it.

        Raises:
            MoeServeError: why not; then nothing has changed.
        """
        _check_can_come(model, self._config.num_ranks)
        async with self._lock:
            candidate = await asyncio.to_thread(candidate_of, self._config, model)
            self._check_name(candidate.model.name)
            number = self._newest = self._free_number()
            # Packing loads scipy the first time.
            slices = await asyncio.to_thread(
                self._slices.with_models, [candidate.model], [candidate.need], [number]
            )
            placed = slices.tenant(number)
            try:
                news = _check(await self._change("load", placed))
                await self._shelf.add(number, _served(news))
            except BaseException:
                # All ranks have its accounts, also those that could not load it.
                await self._change("unload", placed)
                raise
            self._slices = slices
            self._engine.open_tenant(number, self._make_router(placed))
            return slice_value(placed, self._engine.stats())

    async def unload(self, name: str, grace: float) -> None:
        """Serve a model no longer; others change meanwhile.

        Args:
            grace: seconds for its live requests to end; those that have not are ended.

        Raises:
            UnknownModelError: there is none of that name.
            LeavingModelError: somebody else is doing it.
        """
        number = self._find(name).number
        self._leaving.add(number)
        try:
            self._shelf.remove(number)
            await self._drain(number, grace)
            async with self._lock:
                await self._change("unload", self._slices.tenant(number))
                self._engine.close_tenant(number)
                self._slices = self._slices.without(number)
        finally:
            self._leaving.discard(number)

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
                news = _check(await self._change("resize", resized))
            except MoeServeError:
                await self._change("resize", placed, restores=True)
                raise
            self._slices = slices
            if any(each.served for each in news):
                self._shelf.change(placed.number, _served(news))
            return slice_value(resized, self._engine.stats())

    def values(self) -> dict[str, Any]:
        """All slices, for JSON."""
        return slices_value(self._slices, self._engine.stats())

    async def _change(
        self, kind: Kind, placed: PlacedTenant, *, restores: bool = False
    ) -> list[TenantNews]:
        self._num_changes += 1
        logger.info("%s model %s: begun", kind, placed.model.name)
        news = await self._engine.change_tenants(
            TenantChange(number=self._num_changes, kind=kind, placed=placed, restores=restores)
        )
        logger.info("%s model %s: done", kind, placed.model.name)
        return news

    async def _drain(self, number: int, grace: float) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + grace
        while self._is_busy(number) and loop.time() < ends:
            await asyncio.sleep(_LOOK_SECONDS)
        # Whoever has found it and still reads a prompt is told that it is gone, too.
        self._engine.end_tenant(number)

    def _is_busy(self, number: int) -> bool:
        return self._shelf.is_visited(number) or bool(self._engine.live_requests(number))

    def _find(self, name: str) -> PlacedTenant:
        for placed in self._slices.tenants:
            if placed.model.name == name:
                self._check_stays(placed)
                return placed
        served = ", ".join(each.model.name for each in self._slices.tenants)
        raise UnknownModelError(f"no model {name!r}; this server has {served}", "model")

    def _check_stays(self, placed: PlacedTenant) -> None:
        if placed.number in self._leaving:
            raise LeavingModelError(
                f"model {placed.model.name!r} is being unloaded, and its last requests have time "
                "to end; wait until it is gone"
            )

    def _check_name(self, name: str) -> None:
        for placed in self._slices.tenants:
            if placed.model.name == name:
                self._check_stays(placed)
                raise TakenNameError(f"name: a model {name!r} is served already; give another one")

    def _free_number(self) -> int:
        """The next one: somebody may still mean the model that had an earlier one."""
        taken = {each.number for each in self._slices.tenants}
        for step in range(1, MAX_MODELS + 1):
            number = (self._newest + step) % MAX_MODELS
            if number not in taken:
                return number
        raise PlacementError(f"{MAX_MODELS} models are served, and no more can be; unload one")


def _check_can_come(model: ModelConfig, num_ranks: int) -> None:
    """Raise MoeServeError for what is known before a file of the model is read."""
    check_slice("models[..]", model, num_ranks)
    if model.slice.isolate == "sm":
        raise PlacementError(
            "slice.isolate: a device's processors are divided when the server starts, and a model "
            "that comes later gets none to itself; name it in the config, or use isolate: time"
        )
    check_has_weights(model)


def _check(news: Sequence[TenantNews]) -> Sequence[TenantNews]:
    """The same, if all ranks could; else raise why one could not."""
    failed = [each for each in news if each.error]
    if failed:
        # What is wrong with the model stays wrong, whatever another rank has no room for.
        worst = min(failed, key=lambda each: each.fault != "model")
        raise _ERRORS[worst.fault](worst.error)
    return news


def _served(news: Sequence[TenantNews]) -> ServedModel:
    """As it is where it has the least room: requests may go there."""
    served = [each.served for each in news if each.served is not None]
    return min(served, key=lambda each: each.context_length)
