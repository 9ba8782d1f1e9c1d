"""Exceptions as OpenAI's JSON errors with their HTTP status."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from moe_serve.errors import (
    CheckpointError,
    ConfigError,
    EngineDeadError,
    LeavingModelError,
    MoeServeError,
    OverloadedError,
    PlacementError,
    RankError,
    RequestError,
    TakenNameError,
    UnknownModelError,
    UnsupportedError,
)
from moe_serve.types import ErrorKind, TokenEvent

logger = logging.getLogger(__name__)


class ContextLengthError(RequestError):
    """Prompt and answer together are longer than the model's context."""


class BodyTooLargeError(RequestError):
    """The HTTP body is over the server's limit."""


class ApiKeyError(RequestError):
    """No API key, or one that the server does not know."""


class NotReadyError(MoeServeError):
    """The server is starting, or draining before it stops."""


_KINDS: Mapping[ErrorKind, Callable[[str], MoeServeError]] = {
    "request": RequestError,
    "overloaded": OverloadedError,
    "unloaded": partial(UnknownModelError, parameter="model"),
}


def raise_failure(event: TokenEvent) -> None:
    """Raise what ended a request without an answer, if this event says so.

    Raises:
        RequestError: the rank refused it, for good or (OverloadedError) for now; or
            (UnknownModelError) its model was unloaded.
        EngineDeadError: the engine lost or dropped it.
    """
    if event.finish_reason in ("abort", "error"):
        kind = _KINDS.get(event.error_kind, EngineDeadError)
        raise kind(event.error or "the server ended this request early; send it again")


# status, OpenAI's `type`, OpenAI's `code`; the first class that fits an error answers for it.
_SHAPES: tuple[tuple[type[Exception], int, str, str | None], ...] = (
    (ContextLengthError, 400, "invalid_request_error", "context_length_exceeded"),
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (BodyTooLargeError, 413, "invalid_request_error", "request_too_large"),
    (ApiKeyError, 401, "invalid_request_error", "invalid_api_key"),
    (OverloadedError, 429, "rate_limit_error", "overloaded"),
    (RequestError, 400, "invalid_request_error", None),
    (PlacementError, 409, "invalid_request_error", "does_not_fit"),
    (TakenNameError, 409, "invalid_request_error", "name_taken"),
    (LeavingModelError, 409, "invalid_request_error", "being_unloaded"),
    (ConfigError, 400, "invalid_request_error", None),
    (CheckpointError, 400, "invalid_request_error", None),
    (UnsupportedError, 400, "invalid_request_error", None),
    (RankError, 500, "server_error", None),
    (NotReadyError, 503, "server_error", "not_ready"),
    (EngineDeadError, 503, "server_error", "engine_dead"),
)


def error_object(error: Exception) -> tuple[int, dict[str, Any]]:
    """HTTP status and `{"error": ...}`; an error that is not the user's to read shows nothing."""
    for kind, status, name, code in _SHAPES:
        if isinstance(error, kind):
            parameter = error.parameter if isinstance(error, RequestError) else None
            return status, _shape(str(error), name, parameter, code)
    if isinstance(error, HTTPException):
        kind_name = "invalid_request_error" if error.status_code < 500 else "server_error"
        return error.status_code, _shape(error.detail, kind_name, None, None)
    logger.error("unexpected error while answering a request", exc_info=error)
    return 500, _shape("internal server error; see the server's log", "server_error", None, None)


def error_response(error: Exception) -> Response:
    status, content = error_object(error)
    headers = dict(getattr(error, "headers", None) or {})
    if status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(content), status, headers, "application/json")


async def answer_error(_request: Request, error: Exception) -> Response:
    """Starlette's exception handler for everything."""
    return error_response(error)


def _shape(message: str, name: str, parameter: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": name, "param": parameter, "code": code}}
