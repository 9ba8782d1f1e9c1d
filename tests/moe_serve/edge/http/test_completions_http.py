"""/v1/completions over a live server."""

from typing import Any

import openai
import pytest

SAID = "hello 她说🙂 world"


@pytest.fixture
def client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def tokens(server: Any, text: str) -> list[int]:
    response = server.client.post("/tokenize", json={"model": "plain", "prompt": text})
    found: list[int] = response.json()["tokens"]
    return found


def test_a_whole_answer_is_16_tokens_by_default(client: openai.OpenAI, server: Any) -> None:
    answer = client.completions.create(
        model="plain", prompt="hello 她", extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text.startswith("hello 她hello")
    assert (answer.object, answer.id[:5]) == ("text_completion", "cmpl-")


def test_every_form_of_prompt(client: openai.OpenAI, server: Any) -> None:
    ids = tokens(server, SAID)
    for prompt in (SAID, [SAID], ids, [ids]):
        answer = client.completions.create(model="plain", prompt=prompt, max_tokens=100)
        assert [choice.text for choice in answer.choices] == [SAID]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == len(ids) + 1


def test_several_prompts_with_n_choices_each(client: openai.OpenAI, server: Any) -> None:
    answer = client.completions.create(
        model="plain", prompt=["hello", "world", "ships"], n=2, max_tokens=100, seed=5
    )
    said = [(choice.index, choice.text) for choice in answer.choices]
    assert said == list(enumerate(["hello", "hello", "world", "world", "ships", "ships"]))
    assert [request.sampling.seed for request in server.engine.seen] == [5, 6] * 3
    assert answer.usage is not None
    prompts = {request.prompt_ids for request in server.engine.seen}
    assert answer.usage.prompt_tokens == sum(map(len, prompts))
    assert len(prompts) == 3


def test_streamed_prompts_equal_whole_ones(client: openai.OpenAI) -> None:
    texts = dict.fromkeys(range(4), "")
    reasons = []
    chunks = client.completions.create(
        model="plain",
        prompt=[SAID, "ships"],
        n=2,
        max_tokens=100,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons += [choice.finish_reason] if choice.finish_reason else []
        usage = chunk.usage
    assert list(texts.values()) == [SAID, SAID, "ships", "ships"]
    assert reasons == ["stop"] * 4
    assert usage is not None and usage.completion_tokens > 20


def test_logprobs(client: openai.OpenAI, server: Any) -> None:
    answer = client.completions.create(model="plain", prompt=SAID, max_tokens=100, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    count = len(tokens(server, SAID))
    assert len(logprobs.tokens) == count
    assert logprobs.token_logprobs == [-1.0] * count
    assert logprobs.text_offset is not None and logprobs.top_logprobs is not None
    whole = [
        (place, token)
        for place, token in zip(logprobs.text_offset, logprobs.tokens, strict=True)
        if not token.startswith("bytes:")
    ]
    assert all(SAID[place:].startswith(token) for place, token in whole)
    assert all(
        token in top for token, top in zip(logprobs.tokens, logprobs.top_logprobs, strict=True)
    )


def test_stop_token_ids_end_without_their_text(client: openai.OpenAI, server: Any) -> None:
    stop = tokens(server, " world")
    answer = client.completions.create(
        model="plain", prompt=SAID, max_tokens=100, extra_body={"stop_token_ids": stop[:1]}
    )
    assert answer.choices[0].text == SAID.removesuffix(" world")
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"prompt": [448]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"echo": True}, "echo"),
        ({"best_of": 4}, "best_of"),
        ({"suffix": "a"}, "suffix"),
        ({"prompt": ["a", "中" * 400]}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt": ["a"] * 33, "n": 128}, "prompt"),
    ],
)
def test_refusals(server: Any, fields: dict[str, Any], parameter: str) -> None:
    body = {"model": "plain", "prompt": "a", **fields}
    response = server.client.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == parameter
    assert server.engine.seen == []


def test_one_prompt_refused_by_the_engine_ends_the_others(server: Any) -> None:
    server.engine.max_live = 2
    body = {"model": "plain", "prompt": ["hello"] * 3, "max_tokens": 100}
    assert server.client.post("/v1/completions", json=body).status_code == 429
    assert not server.engine.live
