"""The HTTP application."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from moe_serve.control.client import EngineClient, ServedModel
from moe_serve.edge.auth import ApiKeyMiddleware
from moe_serve.edge.chat import ChatRoute
from moe_serve.edge.completions import CompletionRoute
from moe_serve.edge.errors import answer_error
from moe_serve.edge.information import InformationRoutes
from moe_serve.edge.metrics import Metrics
from moe_serve.edge.service import Service
from moe_serve.errors import MoeServeError

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
) -> Starlette:
    """OpenAI's routes over an engine.

    Args:
        models: in the order of the engine's tenants; their tokenizers are loaded here.
        api_keys: SHA-256 hex digests of the keys that may call; none lets everyone call.
        max_body_bytes: larger requests are refused with status 413.
        plan: what /v1/plan answers.

    Raises:
        CheckpointError: a model's tokenizer cannot be read.
    """
    service = Service.open(client, models, metrics, max_body_bytes)
    middleware = [Middleware(ApiKeyMiddleware, keys=api_keys)] if api_keys else []
    return Starlette(
        routes=_routes(service, plan),
        middleware=middleware,
        exception_handlers=_exception_handlers(),
    )


def _routes(service: Service, plan: Callable[[], Mapping[str, Any]]) -> list[Route]:
    information = InformationRoutes(service, plan)
    return [
        Route("/v1/chat/completions", ChatRoute(service).create, methods=["POST"]),
        Route("/v1/completions", CompletionRoute(service).create, methods=["POST"]),
        Route("/v1/models", information.models, methods=["GET"]),
        Route("/v1/models/{name:path}", information.model, methods=["GET"]),
        Route("/v1/plan", information.plan, methods=["GET"]),
        Route("/tokenize", information.tokenize, methods=["POST"]),
        Route("/detokenize", information.detokenize, methods=["POST"]),
        Route("/health", information.health, methods=["GET"]),
        Route("/ready", information.ready, methods=["GET"]),
        Route("/metrics", information.metrics, methods=["GET"]),
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
