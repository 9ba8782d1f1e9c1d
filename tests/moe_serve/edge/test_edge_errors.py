"""Every error has OpenAI's shape and its status."""

import json
import logging

import pytest
from starlette.exceptions import HTTPException

from moe_serve.edge.errors import (
    ApiKeyError,
    BodyTooLargeError,
    ContextLengthError,
    NotReadyError,
    UnknownModelError,
    error_object,
    error_response,
)
from moe_serve.errors import (
    CheckpointError,
    EngineDeadError,
    OverloadedError,
    PlacementError,
    RankError,
    RequestError,
    TakenNameError,
)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError("m", "p"), 400, None),
        (ContextLengthError("m", "p"), 400, "context_length_exceeded"),
        (UnknownModelError("m", "p"), 404, "model_not_found"),
        (ApiKeyError("m", "p"), 401, "invalid_api_key"),
        (BodyTooLargeError("m", "p"), 413, "request_too_large"),
        (OverloadedError("m", "p"), 429, "overloaded"),
        (CheckpointError("m"), 400, None),
        (PlacementError("m"), 409, "does_not_fit"),
        (TakenNameError("m"), 409, "name_taken"),
        (RankError("m"), 500, None),
        (EngineDeadError("m"), 503, "engine_dead"),
        (NotReadyError("m"), 503, "not_ready"),
        (HTTPException(405, "m"), 405, None),
    ],
)
def test_status_and_shape(error: Exception, status: int, code: str | None) -> None:
    found, content = error_object(error)
    parameter = "p" if isinstance(error, RequestError) else None
    assert found == status
    assert set(content["error"]) == {"message", "type", "param", "code"}
    assert content["error"]["message"] == "m"
    assert (content["error"]["param"], content["error"]["code"]) == (parameter, code)


def test_an_unexpected_error_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = error_response(KeyError("secret"))
    assert response.status_code == 500
    assert b"secret" not in response.body
    assert "secret" in caplog.text


def test_messages_keep_their_characters_and_headers_stay() -> None:
    response = error_response(RequestError("不行"))
    assert "不行".encode() in bytes(response.body)
    assert json.loads(bytes(response.body))["error"]["message"] == "不行"
    assert error_response(ApiKeyError("m")).headers["www-authenticate"] == "Bearer"
    allow = error_response(HTTPException(405, "m", headers={"Allow": "POST"}))
    assert allow.headers["allow"] == "POST"
