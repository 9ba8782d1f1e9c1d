"""/v1/rerank over a live server and a real encoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_checkpoints import CONTEXT, TEXTS
from encoder_runs import plain, plain_vectors
from transformers import PreTrainedTokenizerFast

QUERY = "which experts are asked?"
DOCUMENTS = [*TEXTS, "salt", "", "wool and weights"]


@pytest.fixture
def server(encoder_server: tuple[Any, dict[str, Path]]) -> Any:
    return encoder_server[0]


@pytest.fixture(scope="module")
def by_itself(encoder_server: tuple[Any, dict[str, Path]]) -> Any:
    """by_itself(query, document, most=None) -> transformers' own score."""
    path = encoder_server[1]["reranker"]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    module = plain(path, "Bert", "ForSequenceClassification")

    def score(query: str, document: str, most: int | None = None) -> float:
        options = {"truncation": most is not None, "max_length": most}
        encoded = tokenizer([query], [document], return_token_type_ids=True, **options)
        start = encoded["token_type_ids"][0].index(1)
        return float(plain_vectors(module, encoded["input_ids"][0], start).sigmoid())

    return score


def ask(server: Any, route: str = "/v1/rerank", **fields: Any) -> Any:
    body = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS, **fields}
    return server.client.post(route, json=body)


@pytest.mark.parametrize("route", ["/v1/rerank", "/rerank"])
def test_documents_come_best_first(server: Any, route: str, by_itself: Any) -> None:
    answer = ask(server, route).json()
    assert (answer["model"], answer["id"][:7]) == ("reranker", "rerank-")
    assert answer["usage"]["total_tokens"] > len(DOCUMENTS) * 5
    results = answer["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(DOCUMENTS)
    assert sorted(result["index"] for result in results) == list(range(len(DOCUMENTS)))
    for result in results:
        expected = by_itself(QUERY, DOCUMENTS[result["index"]])
        assert result["relevance_score"] == pytest.approx(expected, abs=1e-5)
        assert "document" not in result


def test_the_best_few_with_their_texts(server: Any) -> None:
    every = ask(server, top_n=0).json()["results"]
    documents = [{"text": text, "title": "ignored"} for text in DOCUMENTS]
    some = ask(server, top_n=2, return_documents=True, documents=documents).json()["results"]
    assert some == [
        {**result, "document": {"text": DOCUMENTS[result["index"]]}} for result in every[:2]
    ]
    assert ask(server, top_n=100).json()["results"] == every


@pytest.mark.parametrize("most", [-1, 16, 7])
def test_long_pairs_are_cut_where_the_body_asks(server: Any, most: int, by_itself: Any) -> None:
    documents = [" ".join(TEXTS), "salt"]
    found = ask(server, documents=documents, truncate_prompt_tokens=most).json()["results"]
    for result in found:
        kept = CONTEXT if most == -1 else most
        expected = by_itself(QUERY, documents[result["index"]], kept)
        assert result["relevance_score"] == pytest.approx(expected, abs=1e-5)


def test_many_documents_keep_their_places(server: Any, by_itself: Any) -> None:
    documents = [f"{text} {number}" for number in range(40) for text in ("salt", "wool", "a")]
    results = ask(server, documents=documents).json()["results"]
    found = {result["index"]: result["relevance_score"] for result in results}
    assert len(found) == 120
    expected = [by_itself(QUERY, document) for document in documents]
    np.testing.assert_allclose([found[index] for index in range(120)], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "status", "parameter", "words"),
    [
        ({"model": "nobody"}, 404, "model", ("nobody",)),
        ({"model": "embedder"}, 400, "model", ("embeds texts", "reranks documents")),
        ({"model": "plain"}, 400, "model", ("generates text",)),
        ({"query": ""}, 400, "query", ()),
        ({"documents": []}, 400, "documents", ("1 to 2048",)),
        ({"documents": ["a"] * 2049}, 400, "documents", ("2048",)),
        ({"documents": [{"title": "a"}]}, 400, "documents", ("`text`",)),
        ({"documents": ["a", " ".join(TEXTS)]}, 400, "documents", (f"takes {CONTEXT}", "[1]")),
        ({"top_n": -1}, 400, "top_n", ()),
        ({"truncate_prompt_tokens": 4}, 400, "truncate_prompt_tokens", ("raise it to 5",)),
        ({"max_tokens_per_doc": 5}, 400, "max_tokens_per_doc", ("not supported",)),
    ],
)
def test_bad_requests_name_what_is_wrong(
    server: Any, fields: dict[str, Any], status: int, parameter: str, words: tuple[str, ...]
) -> None:
    response = ask(server, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, parameter), error
    assert all(word in error["message"] for word in words), error["message"]
