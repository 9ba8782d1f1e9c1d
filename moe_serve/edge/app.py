"""The HTTP application."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from moe_serve.control.requests.client import EngineClient, ServedModel
from moe_serve.edge.auth import ApiKeyMiddleware
from moe_serve.edge.chat import ChatRoute
from moe_serve.edge.completions import CompletionRoute
from moe_serve.edge.embeddings import EmbeddingRoute
from moe_serve.edge.errors import answer_error
from moe_serve.edge.information import InformationRoutes
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.rerank import RerankRoute
from moe_serve.edge.service import Service
from moe_serve.edge.slices import SliceKeeper, SliceRoutes
from moe_serve.errors import MoeServeError

MakeKeeper = Callable[[Service], SliceKeeper]

MAX_BODY_BYTES = 16 << 20
# Nobody reads it; the number is nginx's for "client closed request".
_CLIENT_LEFT = 499


def create_app(
    client: EngineClient,
    models: Sequence[ServedModel],
    *,
    api_keys: frozenset[str],
    metrics: Metrics,
    max_body_bytes: int = MAX_BODY_BYTES,
    plan: Callable[[], Mapping[str, Any]] = dict,
    slices: MakeKeeper | None = None,
    admin_keys: frozenset[str] = frozenset(),
) -> Starlette:
    """OpenAI's routes over an engine.

    Args:
        models: in the order of the engine's tenants; their tokenizers are loaded here.
        api_keys: SHA-256 hex digests of the keys that may call; none lets everyone call.
        max_body_bytes: larger requests are refused with status 413.
        plan: what /v1/plan answers.
        slices: makes the keeper of slices, which has models come and go; None where the models
            stay as they are.
        admin_keys: digests of the keys that may have it do so.

    Raises:
        CheckpointError: a model's tokenizer cannot be read.
    """
    service = Service.open(client, models, metrics, max_body_bytes)
    keys = api_keys and api_keys | admin_keys
    middleware = [Middleware(ApiKeyMiddleware, keys=keys)] if keys else []
    routes = _routes(service, plan)
    if slices is not None:
        routes += _slice_routes(SliceRoutes(service, slices(service), admin_keys))
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers=_exception_handlers(),
    )


def _routes(service: Service, plan: Callable[[], Mapping[str, Any]]) -> list[Route]:
    information = InformationRoutes(service, plan)
    return [
        Route("/v1/chat/completions", ChatRoute(service).create, methods=["POST"]),
        Route("/v1/completions", CompletionRoute(service).create, methods=["POST"]),
        Route("/v1/embeddings", EmbeddingRoute(service).create, methods=["POST"]),
        Route("/v1/rerank", RerankRoute(service).create, methods=["POST"]),
        Route("/rerank", RerankRoute(service).create, methods=["POST"]),
        Route("/v1/models", information.models, methods=["GET"]),
        Route("/v1/models/{name:path}", information.model, methods=["GET"]),
        Route("/v1/plan", information.plan, methods=["GET"]),
        Route("/tokenize", information.tokenize, methods=["POST"]),
        Route("/detokenize", information.detokenize, methods=["POST"]),
        Route("/health", information.health, methods=["GET"]),
        Route("/ready", information.ready, methods=["GET"]),
        Route("/metrics", information.metrics, methods=["GET"]),
    ]


def _slice_routes(slices: SliceRoutes) -> list[Route]:
    return [
        Route("/v1/slices", slices.list, methods=["GET"]),
        Route("/v1/slices", slices.load, methods=["POST"]),
        Route("/v1/slices/{name:path}", slices.resize, methods=["PATCH"]),
        Route("/v1/slices/{name:path}", slices.unload, methods=["DELETE"]),
    ]


def _exception_handlers() -> Mapping[Any, Any]:
    return {
        MoeServeError: answer_error,
        HTTPException: answer_error,
        ClientDisconnect: _answer_nobody,
        Exception: answer_error,
    }


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)
