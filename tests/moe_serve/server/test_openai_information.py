"""Health, models, tokenizer and metrics of the live server."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

TEXT = "Seventeen ships 她说:今天 🙂🚢 \x00é"


def test_it_is_alive_and_ready(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "alive"}
    assert http.get("/ready").json() == {"status": "ready"}


def test_the_models_are_listed(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "tiny" and model.object == "model"
    assert client.models.retrieve("tiny") == model


def test_a_text_becomes_transformers_ids_and_a_text_again(http: httpx.Client, oracle: Any) -> None:
    answer = http.post("/tokenize", json={"model": "tiny", "prompt": TEXT}).json()
    assert answer["tokens"] == oracle.ids(TEXT)
    assert answer["count"] == len(answer["tokens"]) and answer["max_model_len"] == 1024
    back = http.post("/detokenize", json={"model": "tiny", "tokens": answer["tokens"]}).json()
    assert back == {"prompt": TEXT}


def test_messages_are_tokenized_with_the_template(http: httpx.Client, oracle: Any) -> None:
    messages = [{"role": "user", "content": TEXT}]
    answer = http.post("/tokenize", json={"messages": messages}).json()
    prompt = f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n"
    assert answer["tokens"] == oracle.ids(prompt)


def test_every_metric_is_there_and_the_counters_grow(
    http: httpx.Client, complete: Callable[..., Any], metric: Callable[[str], float]
) -> None:
    counters = [
        "moe_serve_generated_tokens_total",
        "moe_serve_prompt_tokens_total",
        "moe_serve_steps_total",
        "moe_serve_expert_rows_total",
        "moe_serve_dispatch_bytes_total",
        "moe_serve_step_seconds_total",
        "moe_serve_requests_total",
        "moe_serve_time_to_first_token_seconds_count",
        "moe_serve_inter_token_seconds_count",
    ]
    complete(prompt="warm", max_tokens=1)
    before = {name: metric(name) for name in counters}
    complete(prompt="Count these tokens", max_tokens=5)
    grown = {name: metric(name) - before[name] for name in counters}
    assert all(grown.values()), grown
    assert grown["moe_serve_generated_tokens_total"] == 5
    assert grown["moe_serve_inter_token_seconds_count"] == 4
    assert grown["moe_serve_requests_total"] == 1
    families = {family.name for family in text_string_to_metric_families(http.get("/metrics").text)}
    assert families >= {
        "moe_serve_waiting",
        "moe_serve_running",
        "moe_serve_kv_use_ratio",
        "moe_serve_prefix_hit_tokens",
        "moe_serve_expert_imbalance",
    }


@pytest.mark.parametrize("part", ["schedule", "dense", "dispatch", "experts", "sample"])
def test_step_time_is_told_by_part_for_both_ranks(
    part: str, http: httpx.Client, complete: Callable[..., Any]
) -> None:
    complete(prompt="Take a step", max_tokens=2)
    families = text_string_to_metric_families(http.get("/metrics").text)
    (seconds,) = [family for family in families if family.name == "moe_serve_step_seconds"]
    ranks = {sample.labels["rank"] for sample in seconds.samples if sample.labels["part"] == part}
    assert ranks == {"0", "1"}
