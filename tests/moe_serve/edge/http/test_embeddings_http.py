"""/v1/embeddings over a live server and a real encoder."""

import base64
import json
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from encoder_checkpoints import CONTEXT, TEXTS
from encoder_runs import plain, plain_vectors
from transformers import PreTrainedTokenizerFast

LONG = " ".join(TEXTS)


@pytest.fixture
def server(encoder_server: tuple[Any, dict[str, Path]]) -> Any:
    server, _ = encoder_server
    server.engine.__init__(server.engine.engines)
    return server


@pytest.fixture
def client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def tokenizer(encoder_server: tuple[Any, dict[str, Path]]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(encoder_server[1]["embedder"])


@pytest.fixture(scope="module")
def by_itself(
    encoder_server: tuple[Any, dict[str, Path]], tokenizer: PreTrainedTokenizerFast
) -> Any:
    """by_itself(text or token ids) -> transformers' own mean of the tokens' vectors."""
    module = plain(encoder_server[1]["embedder"], "Bert", "Model")

    def embed(text: str | list[int]) -> "np.ndarray[Any, Any]":
        token_ids = tokenizer(text)["input_ids"] if isinstance(text, str) else text
        return plain_vectors(module, token_ids).mean(0).numpy()

    return embed


def test_the_client_gets_the_model_s_embeddings(
    client: openai.OpenAI, by_itself: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    answer = client.embeddings.create(model="embedder", input=list(TEXTS))
    assert (answer.object, answer.model) == ("list", "embedder")
    assert [each.index for each in answer.data] == [0, 1, 2]
    for each, text in zip(answer.data, TEXTS, strict=True):
        np.testing.assert_allclose(each.embedding, by_itself(text), atol=1e-5)
    num_tokens = sum(len(ids) for ids in tokenizer(list(TEXTS))["input_ids"])
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == num_tokens


def test_every_form_of_input_and_of_answer(client: openai.OpenAI, by_itself: Any) -> None:
    ids = [5, 90, 33, 12]
    forms: list[Any] = [(TEXTS[0], TEXTS[0]), ([TEXTS[0]], TEXTS[0]), (ids, ids), ([ids], ids)]
    for form, same in forms:
        expected = by_itself(same)
        for encoding_format in ("float", "base64"):
            answer = client.embeddings.with_raw_response.create(
                model="embedder", input=form, encoding_format=encoding_format
            )
            (entry,) = json.loads(answer.text)["data"]
            found = entry["embedding"]
            if encoding_format == "base64":
                found = np.frombuffer(base64.b64decode(found), "<f4")
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_numbers_unless_base64_is_asked_for(server: Any) -> None:
    body = {"model": "embedder", "input": TEXTS[0]}
    (entry,) = server.client.post("/v1/embeddings", json=body).json()["data"]
    assert len(entry["embedding"]) == 32
    assert entry["object"] == "embedding"


def test_fewer_dimensions_are_renormalised(client: openai.OpenAI, by_itself: Any) -> None:
    answer = client.embeddings.create(model="embedder", input=TEXTS[0], dimensions=8)
    expected = by_itself(TEXTS[0])[:8]
    np.testing.assert_allclose(
        answer.data[0].embedding, expected / np.linalg.norm(expected), atol=1e-5
    )
    whole = client.embeddings.create(model="embedder", input=TEXTS[0], dimensions=32)
    np.testing.assert_allclose(whole.data[0].embedding, by_itself(TEXTS[0]), atol=1e-5)


def test_a_long_list_goes_in_pieces(client: openai.OpenAI, server: Any, by_itself: Any) -> None:
    texts = [TEXTS[number % 3][number % 60 :] for number in range(2048)]
    answer = client.embeddings.create(model="embedder", input=texts)
    assert [each.index for each in answer.data] == list(range(2048))
    assert max(server.engine.pieces) == 16
    # More would not have fitted the engine's queue.
    assert 16 < server.engine.most_live <= 128
    for index in range(0, 2048, 97):
        np.testing.assert_allclose(answer.data[index].embedding, by_itself(texts[index]), atol=1e-5)


@pytest.mark.parametrize("most", [-1, 10])
def test_long_inputs_are_cut_where_the_body_asks(
    most: int, client: openai.OpenAI, by_itself: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    kept = CONTEXT if most == -1 else most
    asked = {"truncate_prompt_tokens": most}
    answer = client.embeddings.create(model="embedder", input=LONG, extra_body=asked)
    ids = tokenizer(LONG, truncation=True, max_length=kept)["input_ids"]
    assert answer.usage.prompt_tokens == len(ids) == kept
    np.testing.assert_allclose(answer.data[0].embedding, by_itself(ids), atol=1e-5)
    ids = list(range(4, 100))
    answer = client.embeddings.create(model="embedder", input=ids, extra_body=asked)
    np.testing.assert_allclose(answer.data[0].embedding, by_itself(ids[:kept]), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "status", "parameter", "words"),
    [
        ({"model": "nobody"}, 404, "model", ("nobody", "embedder, reranker, plain")),
        ({"model": "plain"}, 400, "model", ("plain generates text", "/v1/embeddings")),
        ({"model": "reranker"}, 400, "model", ("reranker reranks documents",)),
        ({"model": None}, 400, "model", ("name a model",)),
        ({"input": ""}, 400, "input", ("none of them empty",)),
        ({"input": []}, 400, "input", ("none of them empty",)),
        ({"input": ["a", ""]}, 400, "input", ("none of them empty",)),
        ({"input": [[4], []]}, 400, "input", ("none of them empty",)),
        ({"input": ["a"] * 2049}, 400, "input", ("up to 2048",)),
        ({"input": [4, 160]}, 400, "input", ("160", "0..159")),
        ({"input": [[4, -1]]}, 400, "input", ()),
        ({"input": ["a", LONG]}, 400, "input", (f"takes {CONTEXT} tokens", "input[1] has")),
        ({"dimensions": 33}, 400, "dimensions", ("33", "32")),
        ({"dimensions": 0}, 400, "dimensions", ()),
        ({"encoding_format": "int8"}, 400, "encoding_format", ()),
        ({"truncate_prompt_tokens": 49}, 400, "truncate_prompt_tokens", ("49", "1 to 48")),
        ({"truncate_prompt_tokens": 0}, 400, "truncate_prompt_tokens", ("0", "1 to 48")),
        (
            {"input": LONG, "truncate_prompt_tokens": 2},
            400,
            "truncate_prompt_tokens",
            ("2 special", "raise it to 3"),
        ),
        ({"normalize": False}, 400, "normalize", ("not supported",)),
        ({"add_special_tokens": False}, 400, "add_special_tokens", ("not supported",)),
        ({"messages": [{"role": "user", "content": "a"}]}, 400, "messages", ()),
    ],
)
def test_bad_requests_name_what_is_wrong(
    server: Any, fields: dict[str, Any], status: int, parameter: str, words: tuple[str, ...]
) -> None:
    body = {"model": "embedder", "input": TEXTS[0], **fields}
    response = server.client.post("/v1/embeddings", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, parameter), error
    assert error["type"] == "invalid_request_error"
    assert all(word in error["message"] for word in words), error["message"]
    assert server.engine.num_live == 0


def test_harmless_fields_are_taken(server: Any) -> None:
    fields = {"user": "me", "add_special_tokens": True, "normalize": None, "priority": 0}
    body = {"model": "embedder", "input": TEXTS[0], **fields}
    assert server.client.post("/v1/embeddings", json=body).status_code == 200


def test_an_encoder_generates_nothing(server: Any) -> None:
    body = {"model": "embedder", "prompt": "a", "messages": [{"role": "user", "content": "a"}]}
    for route in ("/v1/completions", "/v1/chat/completions"):
        response = server.client.post(route, json=body)
        assert response.status_code == 400
        assert "embedder embeds texts (/v1/embeddings)" in response.json()["error"]["message"]


def test_a_full_queue_is_429_and_leaves_nothing_behind(server: Any) -> None:
    server.engine.engines[0]._max_live = 20
    try:
        body = {"model": "embedder", "input": ["a"] * 100}
        response = server.client.post("/v1/embeddings", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
    finally:
        server.engine.engines[0]._max_live = 140
    wait_until_idle(server)
    assert server.client.post("/v1/embeddings", json={**body, "input": "a"}).status_code == 200


def test_a_client_that_leaves_ends_its_inputs(server: Any) -> None:
    server.engine.seconds_per_step = 30
    body = json.dumps({"model": "embedder", "input": ["a"] * 40}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + body)
        deadline = time.monotonic() + 5
        while server.engine.num_live < 40:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    wait_until_idle(server)
    metric = 'moe_serve_requests_total{finish_reason="abort",model="embedder"} 40.0'
    assert metric in server.client.get("/metrics").text


def wait_until_idle(server: Any) -> None:
    deadline = time.monotonic() + 5
    while server.engine.num_live or any(engine.has_work for engine in server.engine.engines):
        assert time.monotonic() < deadline
        time.sleep(0.005)
