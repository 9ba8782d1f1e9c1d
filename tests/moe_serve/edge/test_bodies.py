"""Request bodies: what is refused says which field, what asks for nothing is taken."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

from moe_serve.edge.bodies import ChatBody, CompletionBody
from moe_serve.edge.errors import BodyTooLargeError
from moe_serve.edge.parsing import read_body
from moe_serve.edge.unsupported import refuse_unsupported
from moe_serve.errors import RequestError


def read(kind: type[Any], content: bytes, limit: int = 1 << 20) -> Any:
    halves = [content[: len(content) // 2], content[len(content) // 2 :]]

    async def receive() -> dict[str, Any]:
        body = halves.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(halves)}

    scope = {"type": "http", "method": "POST", "headers": []}
    return asyncio.run(read_body(Request(scope, receive), kind, limit))


def completion(**fields: Any) -> CompletionBody:
    body: CompletionBody = read(CompletionBody, json.dumps({"prompt": "a", **fields}).encode())
    return body


def chat(**fields: Any) -> ChatBody:
    messages = [{"role": "user", "content": "hi"}]
    body: ChatBody = read(ChatBody, json.dumps({"messages": messages, **fields}).encode())
    return body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "1"),
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", 1.5),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e300),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("max_tokens", 0),
        ("max_tokens", "16"),
        ("max_tokens", 16.0),
        ("n", 0),
        ("n", 129),
        ("n", True),
        ("seed", 1.5),
        ("seed", 2**63),
        ("stop", 3),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop_token_ids", ["1"]),
        ("stop_token_ids", [-1]),
        ("logit_bias", {"1": 101}),
        ("logit_bias", [1]),
        ("logprobs", 21),
        ("logprobs", True),
        ("stream", "yes"),
        ("stream_options", {"include_usage": "yes"}),
        ("prompt", 7),
        ("prompt", []),
        ("prompt", ["a", 1]),
        ("prompt", [1, "a"]),
        ("prompt", [[1], "a"]),
        ("model", 4),
        ("logit_bias", {str(token): 1 for token in range(301)}),
        ("stop_token_ids", list(range(129))),
        ("prompt", ["a"] * 4097),
        ("prompt", [[1]] * 4097),
        ("prompt", [[]]),
    ],
)
def test_a_wrong_type_or_range_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field) as raised:
        completion(**{field: value})
    assert raised.value.parameter == field


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a valid JSON"),
        (b"[]", "not a valid JSON object"),
        (b"\xff\xfe", "not a valid JSON"),
        (b'{"prompt": "\\ud800"}', "not a valid JSON"),
        (b'{"prompt": "a", "temperature": NaN}', "temperature"),
        (b"{}", "prompt: Field required"),
    ],
)
def test_malformed_bodies_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read(CompletionBody, content)


def test_a_body_over_the_limit_is_not_read_on() -> None:
    content = json.dumps({"prompt": "a" * 100}).encode()
    assert read(CompletionBody, content, limit=len(content)).prompts == ["a" * 100]
    with pytest.raises(BodyTooLargeError, match="limit of 60 bytes"):
        read(CompletionBody, content, limit=60)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("ab", ["ab"]),
        ("", [""]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_the_four_forms_of_a_prompt(prompt: Any, prompts: Any) -> None:
    assert completion(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "robot", "content": "a"}, r"messages\[0\].role"),
        ({"role": "user", "content": 5}, r"messages\[0\].content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, r"messages\[0\].content"),
        ({"role": "tool", "content": "a"}, r"messages\[0\].role"),
    ],
)
def test_messages_are_checked(message: dict[str, Any], where: str) -> None:
    with pytest.raises(RequestError, match=where) as raised:
        chat(messages=[message])
    assert raised.value.parameter == "messages"


def test_messages_become_what_templates_know() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(
        messages=[
            {"role": "developer", "content": parts},
            {"role": "assistant", "content": None, "reasoning_content": "why"},
        ]
    )
    assert [message.for_template() for message in body.messages] == [
        {"role": "system", "content": "a\nb"},
        {"role": "assistant", "content": "", "reasoning_content": "why"},
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("audio", {"voice": "alloy"}),
        ("modalities", ["text", "audio"]),
        ("suffix", "end"),
        ("echo", True),
        ("min_tokens", 3),
        ("best_of", 2),
        ("best_of", "many"),
    ],
)
def test_unsupported_fields_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"{field}.*not supported") as raised:
        refuse_unsupported(completion(**{field: value}))
    assert raised.value.parameter == field


def test_what_asks_for_nothing_is_ignored() -> None:
    harmless: dict[str, Any] = {
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "suffix": None,
        "echo": False,
        "best_of": 2,
        "n": 2,
        "user": "someone",
        "never_heard_of": {"a": 1},
    }
    refuse_unsupported(completion(**harmless))
