"""/v1/slices: which models are served with which share, and how that changes while they are."""

import re
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from moe_serve.config.fields import build
from moe_serve.config.load import absolute_path
from moe_serve.config.tree import ModelConfig, SliceConfig
from moe_serve.edge.answering import json_response
from moe_serve.edge.auth import knows
from moe_serve.edge.errors import ApiKeyError
from moe_serve.edge.parsing import read_bytes
from moe_serve.edge.service import Service
from moe_serve.errors import RequestError

# For live requests of a model that is unloaded.
_GRACE_SECONDS = 30.0


class SliceKeeper(Protocol):
    """See `control/requests/slice_keeper.py`."""

    def values(self) -> dict[str, Any]: ...

    async def load(self, model: ModelConfig) -> dict[str, Any]: ...

    async def unload(self, name: str, grace: float) -> None: ...

    async def resize(self, name: str, asked: dict[str, Any]) -> dict[str, Any]: ...


class SliceRoutes:
    """
    Args:
        admin_keys: SHA-256 hex digests of the keys that may change slices; none lets nobody.
    """

    def __init__(self, service: Service, keeper: SliceKeeper, admin_keys: frozenset[str]) -> None:
        self._service = service
        self._keeper = keeper
        self._admin_keys = admin_keys

    async def list(self, _request: Request) -> Response:
        return json_response(self._keeper.values())

    async def load(self, request: Request) -> Response:
        """The body is an entry of the config's `models`."""
        self._check_admin(request)
        body = await self._read(request)
        return json_response(await self._keeper.load(absolute_path(build(ModelConfig, body, ""))))

    async def resize(self, request: Request) -> Response:
        """The body has those fields of a `slice` that change."""
        self._check_admin(request)
        body = await self._read(request)
        # All of it is checked; what is not there stays as it is.
        checked = build(SliceConfig, body, "slice")
        asked = {name: getattr(checked, name) for name in body}
        return json_response(await self._keeper.resize(request.path_params["name"], asked))

    async def unload(self, request: Request) -> Response:
        self._check_admin(request)
        name = request.path_params["name"]
        await self._keeper.unload(name, _grace(request.query_params.get("grace")))
        return json_response({"id": name, "object": "slice", "deleted": True})

    def _check_admin(self, request: Request) -> None:
        if not knows(self._admin_keys, request.headers):
            raise ApiKeyError(
                "this needs an admin key; send `Authorization: Bearer KEY` with a key of the file "
                "that server.admin_keys names"
            )
        self._service.check_ready()

    async def _read(self, request: Request) -> dict[str, Any]:
        content = await read_bytes(request, self._service.max_body_bytes)
        try:
            body = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError) as error:
            raise RequestError(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise RequestError("the body must be a JSON object")
        return body


def _grace(text: str | None) -> float:
    if text is None:
        return _GRACE_SECONDS
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", text):
        raise RequestError(f"grace: expected seconds, got {text!r}", "grace")
    return float(text)
