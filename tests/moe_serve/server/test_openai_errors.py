"""Requests that cannot be served, as the openai client sees them."""

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

CONTEXT = 1024


def test_an_unknown_model_is_not_found(client: openai.OpenAI, chat: Callable[..., Any]) -> None:
    with pytest.raises(openai.NotFoundError, match=r"'huge'.*tiny") as raised:
        chat("Hello", model="huge")
    assert raised.value.code == "model_not_found" and raised.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "hot"),
        ("temperature", 3),
        ("max_tokens", 0),
        ("max_tokens", 2.5),
        ("max_tokens", "16"),
        ("n", True),
        ("stop", 7),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"five": 1}),
        ("logit_bias", {"384": 1}),
        ("logprobs", 21),
        ("seed", "one"),
        ("stream", "yes"),
        ("prompt", {"text": "Hello"}),
        ("prompt", [5, "a"]),
        ("prompt", [384]),
        ("prompt", []),
        ("suffix", "after"),
    ],
)
def test_what_is_wrong_is_named(field: str, value: Any, complete: Callable[..., Any]) -> None:
    with pytest.raises(openai.BadRequestError, match=field) as raised:
        complete(**{"prompt": "Hello", field: value})
    assert raised.value.param == field
    assert raised.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", "Hello"),
        ("messages", []),
        ("messages", [{"role": "wizard", "content": "Hello"}]),
        ("messages", [{"role": "user", "content": 5}]),
        ("top_logprobs", 5),
        ("logprobs", 5),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("response_format", {"type": "json_object"}),
    ],
)
def test_what_is_wrong_with_a_chat_is_named(field: str, value: Any, client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], field: value}
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="tiny", **fields)
    assert raised.value.param == field and field in raised.value.message


@pytest.mark.parametrize(
    ("num_prompt_tokens", "max_tokens", "number"),
    [(1000, 100, 1100), (CONTEXT, 1, CONTEXT), (3000, None, 3000), (5, 1020, 1025)],
)
def test_too_long_is_refused_with_both_numbers(
    num_prompt_tokens: int, max_tokens: int | None, number: int, complete: Callable[..., Any]
) -> None:
    prompt = [5] * num_prompt_tokens
    with pytest.raises(openai.BadRequestError, match=rf"\b{number}\b") as raised:
        complete(prompt=prompt, max_tokens=max_tokens, stream=True)
    assert str(CONTEXT) in raised.value.message
    assert raised.value.code == "context_length_exceeded" and raised.value.param == "prompt"


def test_the_longest_request_is_served(complete: Callable[..., Any]) -> None:
    answer = complete(prompt=[5] * (CONTEXT - 4), max_tokens=4)
    assert answer.usage.total_tokens == CONTEXT


def test_a_chat_too_long_is_refused_with_both_numbers(chat: Callable[..., Any]) -> None:
    with pytest.raises(openai.BadRequestError, match=rf"\b{CONTEXT}\b.*\b\d+\b") as raised:
        chat("x" * CONTEXT)
    assert raised.value.code == "context_length_exceeded" and raised.value.param == "messages"


@pytest.mark.parametrize("body", ["{", "", "[1]", '"text"', '{"prompt": "\ud800"}', "\u00ff"])
def test_a_body_that_is_no_json_object_is_refused(body: str, http: httpx.Client) -> None:
    content = (
        body.encode("latin-1", "surrogatepass")
        if body == "\u00ff"
        else body.encode("utf-8", "surrogatepass")
    )
    for path in ("/v1/completions", "/v1/chat/completions"):
        response = http.post(path, content=content)
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error" and error["message"]


def test_errors_of_the_router_have_the_same_shape(http: httpx.Client) -> None:
    for response, status in (
        (http.get("/v1/nothing"), 404),
        (http.get("/v1/completions"), 405),
    ):
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_the_server_goes_on_after_errors(complete: Callable[..., Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        complete(prompt="Hello", max_tokens=-1)
    assert complete(prompt="Hello", max_tokens=2).usage.completion_tokens == 2
