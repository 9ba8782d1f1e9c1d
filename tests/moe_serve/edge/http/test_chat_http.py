"""/v1/chat/completions over a live server, by the openai client where its view matters."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from moe_serve.types import Request

SAID = "hello 她说🙂 world"


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def say(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "plain", "messages": [{"role": "user", "content": text}], **fields}


def post(server: Any, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    response = server.client.post("/v1/chat/completions", json=body)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def stream(server: Any, body: dict[str, Any]) -> list[Any]:
    response = server.client.post("/v1/chat/completions", json={**body, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.content.decode().split("\n\n")
    assert blocks.pop() == ""
    lines = [block.removeprefix("data: ") for block in blocks]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_whole_answer(client: openai.OpenAI, server: Any) -> None:
    answer = client.chat.completions.create(**say(SAID))
    (request,) = server.engine.seen
    choice = answer.choices[0]
    assert (choice.message.content, choice.message.role) == (SAID, "assistant")
    assert (choice.finish_reason, choice.index, choice.logprobs) == ("stop", 0, None)
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "plain")
    assert answer.system_fingerprint
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens == len(request.prompt_ids)
    assert answer.usage.total_tokens == len(request.prompt_ids) + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert not hasattr(choice.message, "reasoning_content")


def test_length_is_what_the_context_leaves(server: Any) -> None:
    post(server, say("hello", ignore_eos=True))
    (request,) = server.engine.seen
    assert request.sampling.max_tokens == 512 - len(request.prompt_ids)
    assert request.end_token_ids == (2,)
    assert request.sampling.ignore_eos


def test_streamed_chunks_are_openais(server: Any) -> None:
    chunks = stream(server, say(SAID))
    assert chunks.pop() == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == SAID
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert not any("usage" in chunk for chunk in chunks)
    assert "\ufffd" not in json.dumps(chunks, ensure_ascii=False)


def test_streamed_usage_comes_last_and_is_null_before(server: Any) -> None:
    chunks = stream(server, say(SAID, stream_options={"include_usage": True}))
    assert chunks.pop() == "[DONE]"
    last = chunks.pop()
    assert last["choices"] == []
    assert last["usage"] == post(server, say(SAID))["usage"]
    assert all(chunk["usage"] is None for chunk in chunks)


def test_n_choices_are_requests_of_one_group_with_seeds_of_their_own(
    client: openai.OpenAI, server: Any
) -> None:
    answer = client.chat.completions.create(**say(SAID, n=3, seed=7))
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {SAID}
    seen: list[Request] = server.engine.seen
    assert [request.sampling.seed for request in seen] == [7, 8, 9]
    assert len({request.request_id for request in seen}) == 3
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(seen[0].prompt_ids)


def test_streamed_choices_each_have_a_role_and_an_end(client: openai.OpenAI, server: Any) -> None:
    texts, roles, ends = ["", ""], [0, 0], [0, 0]
    for chunk in client.chat.completions.create(**say(SAID, n=2, stream=True)):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index] += choice.delta.role is not None
        ends[choice.index] += choice.finish_reason is not None
    assert (texts, roles, ends) == ([SAID, SAID], [1, 1], [1, 1])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_string_ends_text_usage_and_sequence(server: Any, streamed: bool) -> None:
    body = say("hello world END more more more", stop=[" END"], stream_options=None)
    if streamed:
        body["stream_options"] = {"include_usage": True}
        chunks = stream(server, body)[:-1]
        usage = chunks.pop()["usage"]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        reason = chunks[-1]["choices"][0]["finish_reason"]
    else:
        answer = post(server, body)
        usage, choice = answer["usage"], answer["choices"][0]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert (text, reason) == ("hello world", "stop")
    (request,) = server.engine.seen
    assert request.request_id in server.engine.aborted
    assert not server.engine.live
    count = server.client.post("/tokenize", json={"model": "plain", "prompt": "hello world END"})
    assert usage["completion_tokens"] == count.json()["count"]


def test_max_tokens_ends_with_length(server: Any) -> None:
    answer = post(server, say(SAID, max_completion_tokens=2))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 2


def test_logprobs(client: openai.OpenAI, server: Any) -> None:
    whole = client.chat.completions.create(**say(SAID, logprobs=True, top_logprobs=2))
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert b"".join(bytes(entry.bytes or ()) for entry in logprobs.content).decode() == SAID
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs.content)
    assert {entry.logprob for entry in logprobs.content} == {-1.0}
    streamed: list[int] = []
    for chunk in client.chat.completions.create(**say(SAID, logprobs=True, stream=True)):
        content = chunk.choices[0].logprobs and chunk.choices[0].logprobs.content
        streamed += [byte for entry in content or () for byte in entry.bytes or ()]
    assert bytes(streamed).decode() == SAID


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("model", "options", "said", "reasoning", "content"),
    [
        ("thinking", {}, "<think>\nwhy 她\n</think>\n\nso", "why 她\n", "so"),
        ("thinking", {}, "so", "", "so"),
        ("opened", {}, "why</think>so", "why", "so"),
        ("opened", {"closed": True}, "why</think>so", "", "why</think>so"),
        ("plain", {}, "<think>why</think>so", "", "<think>why</think>so"),
    ],
)
def test_reasoning_apart_from_content(
    server: Any,
    streamed: bool,
    model: str,
    options: dict[str, Any],
    said: str,
    reasoning: str,
    content: str,
) -> None:
    body = say(said, chat_template_kwargs=options, model=model)
    if streamed:
        deltas = [chunk["choices"][0]["delta"] for chunk in stream(server, body)[:-1]]
        found = ["".join(d.get(k, "") for d in deltas) for k in ("reasoning_content", "content")]
    else:
        message = post(server, body)["choices"][0]["message"]
        assert ("reasoning_content" in message) == (model != "plain")
        found = [message.get("reasoning_content") or "", message["content"]]
    assert found == [reasoning, content]


@pytest.mark.parametrize(
    ("fields", "status", "code", "parameter"),
    [
        ({"model": "gpt-9"}, 404, "model_not_found", "model"),
        ({"model": None}, 400, None, "model"),
        ({"temperature": "hot"}, 400, None, "temperature"),
        ({"tools": [{"type": "function"}]}, 400, None, "tools"),
        ({"messages": []}, 400, None, "messages"),
        ({"messages": [{"role": "user", "content": "refuse me"}]}, 400, None, "messages"),
        ({"top_logprobs": 2}, 400, None, "top_logprobs"),
        ({"max_tokens": 600}, 400, "context_length_exceeded", "messages"),
        ({"chat_template_kwargs": {"tokenize": True}}, 400, None, "chat_template_kwargs"),
    ],
)
def test_refusals(
    server: Any, fields: dict[str, Any], status: int, code: str | None, parameter: str
) -> None:
    error = post(server, say("hello", **fields), status)["error"]
    assert (error["code"], error["param"]) == (code, parameter)
    assert server.engine.seen == []


def test_too_long_a_prompt_names_both_numbers(server: Any) -> None:
    error = post(server, say("中" * 1000), 400)["error"]
    assert error["code"] == "context_length_exceeded"
    assert "512 tokens" in error["message"]
    assert "alone have 30" in error["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_full_queue_is_429_and_a_server_not_ready_503(server: Any, streamed: bool) -> None:
    server.engine.max_live = 1
    error = post(server, say("hello", n=2, stream=streamed), 429)["error"]
    assert error["code"] == "overloaded"
    server.engine.is_ready = False
    error = post(server, say("hello", stream=streamed), 503)["error"]
    assert error["code"] == "not_ready"


@pytest.mark.parametrize(
    ("kind", "status", "name", "code"),
    [
        ("overloaded", 429, "rate_limit_error", "overloaded"),
        ("request", 400, "invalid_request_error", None),
        ("unloaded", 404, "invalid_request_error", "model_not_found"),
        ("engine", 503, "server_error", "engine_dead"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_rank_refuses_has_the_status_of_its_kind(
    server: Any, kind: str, status: int, name: str, code: str | None, streamed: bool
) -> None:
    server.engine.fail_after, server.engine.fail_kind = 0, kind
    error = post(server, say(SAID, n=2, stream=streamed), status)["error"]
    assert (error["type"], error["code"]) == (name, code)
    assert not server.engine.live


def test_a_stream_whose_model_is_unloaded_ends_with_that(server: Any) -> None:
    server.engine.fail_after, server.engine.fail_kind = 4, "unloaded"
    *chunks, last = stream(server, say(SAID))
    assert chunks[0]["choices"]
    assert (last["error"]["code"], last["error"]["param"]) == ("model_not_found", "model")
    assert not server.engine.live


def test_a_lost_sequence(client: openai.OpenAI, server: Any) -> None:
    server.engine.fail_after = 0
    assert post(server, say(SAID), 503)["error"]["message"] == "rank 1 is gone"
    post(server, say(SAID, stream=True), 503)
    server.engine.fail_after = 4
    error = post(server, say(SAID), 503)["error"]
    assert error["code"] == "engine_dead"
    *chunks, last = stream(server, say(SAID))
    assert chunks[0]["choices"]
    assert last == {"error": error}
    with pytest.raises(openai.APIError, match="rank 1 is gone"):
        list(client.chat.completions.create(**say(SAID, stream=True)))
    assert not server.engine.live
