"""Several models served side by side by real ranks: what each answers, and who may change that."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from checkpoints import make_tokenizer
from guest_models import spoiled
from live_server import LiveServer
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from slice_clients import (
    ADMIN_HEADERS,
    GENERATING,
    PROMPTS,
    Answers,
    busy,
    generate,
    shares_within,
    text_of,
    used_seconds,
)
from transformers import BertForSequenceClassification, BertModel

TEXTS = ["seventeen small ships", "salt, timber and wool", "before dawn"]


def test_each_model_answers_as_it_does_alone(two_ranks: LiveServer, answers: Answers) -> None:
    wanted = [(model, place) for place in range(len(PROMPTS)) for model in GENERATING] * 2
    with ThreadPoolExecutor(len(wanted)) as pool:
        found = list(
            pool.map(lambda one: text_of(generate(two_ranks.url, one[0], PROMPTS[one[1]])), wanted)
        )
    assert found == [answers[model][place] for model, place in wanted]


def test_an_encoder_answers_beside_models_that_generate(
    two_ranks: LiveServer, model_paths: Mapping[str, Path]
) -> None:
    client = OpenAI(base_url=f"{two_ranks.url}/v1", api_key="none", max_retries=0)
    tokenizer = make_tokenizer()
    encoder = BertModel.from_pretrained(model_paths["embedder"]).eval()
    with busy(two_ranks.url, ["big", "small"], 1):
        data = client.embeddings.create(model="embedder", input=TEXTS).data
    with torch.no_grad():
        for text, each in zip(TEXTS, data, strict=True):
            ids = torch.tensor([tokenizer.encode(text)])
            mean = encoder(ids).last_hidden_state[0].mean(0)
            assert torch.allclose(torch.tensor(each.embedding), mean, atol=1e-5)


def test_a_reranker_orders_documents(
    two_ranks: LiveServer, model_paths: Mapping[str, Path]
) -> None:
    body = {"model": "reranker", "query": "cargo", "documents": TEXTS}
    results = httpx.post(f"{two_ranks.url}/v1/rerank", json=body).raise_for_status().json()
    scores = {each["index"]: each["relevance_score"] for each in results["results"]}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    model = BertForSequenceClassification.from_pretrained(model_paths["reranker"]).eval()
    tokenizer = make_tokenizer()
    with torch.no_grad():
        for index, text in enumerate(TEXTS):
            pair = tokenizer("cargo", text, return_tensors="pt", return_token_type_ids=True)
            score = torch.sigmoid(model(**pair).logits[0, 0])
            assert scores[index] == pytest.approx(score.item(), abs=1e-5)


def test_what_a_model_does_not_do_is_said(two_ranks: LiveServer) -> None:
    answer = generate(two_ranks.url, "embedder", PROMPTS[0])
    assert answer.status_code == 400
    assert "embeds texts" in answer.json()["error"]["message"]
    answer = httpx.post(f"{two_ranks.url}/v1/embeddings", json={"model": "small", "input": "hello"})
    assert answer.status_code == 400


def test_slices_are_told(two_ranks: LiveServer) -> None:
    found = httpx.get(f"{two_ranks.url}/v1/slices").json()
    by_name = {each["id"]: each for each in found["data"]}
    assert by_name["big"]["rank"] == "all"
    assert {by_name[name]["rank"] for name in ("small", "little", "embedder")} <= {0, 1}
    assert [used["rank"] for used in by_name["big"]["used"]] == [0, 1]
    parts = by_name["big"]["used"][0]["memory_bytes"]
    assert {"weights", "working_space"} <= parts.keys()
    for rank in found["ranks"]:
        here = [each for each in by_name.values() if each["rank"] in ("all", rank["rank"])]
        taken = sum(each["compute_percent"] for each in here)
        assert rank["free_compute_percent"] == pytest.approx(100 - taken)


def test_metrics_count_each_models_seconds(two_ranks: LiveServer) -> None:
    generate(two_ranks.url, "small", PROMPTS[0]).raise_for_status()
    text = httpx.get(f"{two_ranks.url}/metrics").text
    samples = [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "moe_serve_slice_seconds_total"
    ]
    found = {(each.labels["model"], each.labels["rank"]): each.value for each in samples}
    (small,) = [value for (model, _), value in found.items() if model == "small"]
    assert small > 0
    assert {rank for model, rank in found if model == "big"} == {"0", "1"}


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}], ids=["none", "wrong"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/slices"), ("PATCH", "/v1/slices/small"), ("DELETE", "/v1/slices/small")],
)
def test_changes_take_the_admin_key(
    two_ranks: LiveServer, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = httpx.request(method, f"{two_ranks.url}{path}", json={}, headers=headers)
    assert answer.status_code == 401
    assert "server.admin_keys" in answer.json()["error"]["message"]
    assert "small" in used_seconds(two_ranks.url)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"compute_percent": 90}, 409, "has 100 percent, at least 1 for each model, and is asked"),
        ({"memory_mb": 10_000_000}, 409, "MiB for its models and is asked for"),
        ({"compute_percent": 0.5}, 400, "slice.compute_percent"),
        ({"percent": 5}, 400, "unknown key"),
        ({"isolate": "sm"}, 409, "isolate"),
    ],
)
def test_a_resize_that_cannot_be_is_refused(
    two_ranks: LiveServer, body: dict[str, object], status: int, said: str
) -> None:
    before = httpx.get(f"{two_ranks.url}/v1/slices").json()["ranks"]
    answer = httpx.patch(f"{two_ranks.url}/v1/slices/small", json=body, headers=ADMIN_HEADERS)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert httpx.get(f"{two_ranks.url}/v1/slices").json()["ranks"] == before


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"path": "/nowhere"}, 400, "no such directory"),
        ({"name": "small"}, 409, "is served already"),
        ({"slice": {"compute_percent": 70, "memory_mb": 128}}, 409, "70% is asked for"),
        ({"slice": {"compute_percent": 5, "memory_mb": 1}}, 409, "and has 1"),
        ({"slice": {"compute_percent": 5, "memory_mb": 1 << 43}}, 409, "no rank has more than"),
        ({"slice": {"compute_percent": 5, "isolate": "sm"}}, 409, "when the server starts"),
        ({"spread": "all", "rank": 1}, 400, "remove one of the two keys"),
        ({"rank": 7}, 400, "there is no rank 7"),
        ({"dtype": "float12"}, 400, "dtype"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused(
    two_ranks: LiveServer,
    model_paths: Mapping[str, Path],
    change: dict[str, object],
    status: int,
    said: str,
) -> None:
    fitting = {"compute_percent": 5, "memory_mb": 128}
    body = {"path": str(model_paths["little"]), "name": "another", "slice": fitting} | change
    answer = httpx.post(f"{two_ranks.url}/v1/slices", json=body, headers=ADMIN_HEADERS)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    names = {each["id"] for each in httpx.get(f"{two_ranks.url}/v1/models").json()["data"]}
    assert names == {*GENERATING, "embedder", "reranker"}


def test_what_ranks_find_wrong_with_a_checkpoint_is_a_wrong_request(
    two_ranks: LiveServer, model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    longer = spoiled(model_paths["big"], tmp_path, num_hidden_layers=4)
    fitting = {"compute_percent": 5, "memory_mb": 128}
    body = {"path": str(longer), "name": "another", "slice": fitting}
    answer = httpx.post(f"{two_ranks.url}/v1/slices", json=body, headers=ADMIN_HEADERS)
    assert (answer.status_code, "has no tensor model.layers.3" in answer.text) == (400, True)


def test_a_model_comes_and_goes_while_others_serve(
    two_ranks: LiveServer, model_paths: Mapping[str, Path], answers: Answers
) -> None:
    url = two_ranks.url
    body = {
        "path": str(model_paths["little"]),
        "name": "guest",
        "dtype": "float32",
        "slice": {"compute_percent": 5, "memory_mb": 128},
    }
    with busy(url, ["big", "small"], 1):
        for spread in ("one", "all"):
            asked = body | {"spread": spread}
            answer = httpx.post(f"{url}/v1/slices", json=asked, headers=ADMIN_HEADERS, timeout=60)
            assert answer.status_code == 200, answer.text
            assert (answer.json()["rank"] == "all") == (spread == "all")
            assert text_of(generate(url, "guest", PROMPTS[1])) == answers["little"][1]
            assert text_of(generate(url, "big", PROMPTS[2])) == answers["big"][2]
            gone, last = _unload_midway(url, "guest")
            assert '"code":"model_not_found"' in last
            assert gone.json() == {"id": "guest", "object": "slice", "deleted": True}
            assert generate(url, "guest", PROMPTS[1]).status_code == 404
    missing = httpx.delete(f"{url}/v1/slices/guest", headers=ADMIN_HEADERS)
    assert missing.status_code == 404


def _unload_midway(url: str, model: str) -> tuple[httpx.Response, str]:
    """While it answers -> also the last event of that."""
    body = {"model": model, "prompt": [5, 6], "max_tokens": 900, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
        events = (line for line in answer.iter_lines() if line)
        assert "choices" in next(events)
        place = f"{url}/v1/slices/{model}?grace=0"
        return httpx.delete(place, headers=ADMIN_HEADERS, timeout=60), list(events)[-1]


def test_a_model_of_all_ranks_shares_them_with_those_of_one(two_ranks: LiveServer) -> None:
    with busy(two_ranks.url, ["big", "small"], 5):
        shares = shares_within(two_ranks.url, 2.0)
    # What the idle ones leave is lent to both. Models of one rank have their turns together, as
    # long as those of the rank that asks for most.
    (small,) = shares["small"].values()
    assert small > 0.18
    for big in shares["big"].values():
        assert big > 0.37
    assert small + max(shares["big"].values()) > 0.85


def test_a_hard_share_is_all_that_a_model_gets(two_ranks: LiveServer) -> None:
    with busy(two_ranks.url, ["little"], 3):
        shares = shares_within(two_ranks.url, 2.0)
    (little,) = shares["little"].values()
    assert little == pytest.approx(0.25, abs=0.03)
