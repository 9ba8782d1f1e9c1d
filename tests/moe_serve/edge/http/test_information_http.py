"""The routes that generate nothing, and what every route does with a wrong request."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families


def samples(server: Any) -> dict[tuple[str, tuple[str, ...]], float]:
    response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {
        (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_models(server: Any) -> None:
    listed = server.client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["plain", "thinking", "opened"]
    one = server.client.get("/v1/models/thinking").json()
    assert one == listed["data"][1]
    assert (one["object"], one["max_model_len"]) == ("model", 512)
    missing = server.client.get("/v1/models/org/other")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_tokenize_and_back(server: Any) -> None:
    text = "hello 她🙂"
    found = server.client.post("/tokenize", json={"model": "plain", "prompt": text}).json()
    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == 512
    body = {"model": "plain", "tokens": found["tokens"]}
    assert server.client.post("/detokenize", json=body).json() == {"prompt": text}


def test_tokenize_fills_the_chat_template_as_chat_does(server: Any) -> None:
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "plain", "messages": messages}
    found = server.client.post("/tokenize", json=body).json()
    server.client.post("/v1/chat/completions", json=body)
    assert tuple(found["tokens"]) == server.engine.seen[0].prompt_ids
    back = server.client.post("/detokenize", json={"model": "plain", "tokens": found["tokens"]})
    assert back.json()["prompt"].endswith("hello<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": [{"role": "user"}]}])
def test_tokenize_wants_one_of_prompt_and_messages(server: Any, body: dict[str, Any]) -> None:
    response = server.client.post("/tokenize", json={"model": "plain", **body})
    assert response.status_code == 400
    assert "either prompt or messages" in response.json()["error"]["message"]


def test_detokenize_refuses_ids_that_do_not_exist(server: Any) -> None:
    response = server.client.post("/detokenize", json={"model": "plain", "tokens": [448]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tokens"


def test_alive_is_not_ready(server: Any) -> None:
    assert server.client.get("/ready").status_code == 200
    server.engine.is_ready = False
    assert server.client.get("/health").status_code == 200
    response = server.client.get("/ready")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "not_ready"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/metrics", 405), ("GET", "/nowhere", 404)],
)
def test_wrong_paths_and_methods_have_openais_shape(
    server: Any, method: str, path: str, status: int
) -> None:
    response = server.client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_malformed_and_oversized_bodies(serve: Callable[..., Any]) -> None:
    with serve(max_body_bytes=1000) as server:
        response = server.client.post("/v1/completions", content=b"{nonsense")
        assert response.status_code == 400
        assert "not a valid JSON" in response.json()["error"]["message"]
        large = b'{"prompt": "%s"}' % (b"a" * 2000)
        assert server.client.post("/v1/completions", content=large).status_code == 413
        pieces = iter([large[:900], large[900:]])
        assert server.client.post("/v1/completions", content=pieces).status_code == 413


def test_one_model_need_not_be_named(serve: Callable[..., Any]) -> None:
    with serve() as server:
        body = {"prompt": "hello", "max_tokens": 20}
        answer = server.client.post("/v1/completions", json=body).json()
        assert (answer["model"], answer["choices"][0]["text"]) == ("plain", "hello")


def test_an_unexpected_error_shows_nothing(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_requests: object) -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr(server.engine, "generate", broken)
    response = server.client.post("/v1/completions", json={"model": "plain", "prompt": "a"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]["type"] == "server_error"


def test_metrics_count_what_clients_saw(serve: Callable[..., Any]) -> None:
    with serve() as server:
        body = {"prompt": "hello hello ships", "n": 2, "max_tokens": 3}
        server.client.post("/v1/completions", json=body)
        server.client.post("/v1/completions", json={**body, "max_tokens": 100, "n": 1})
        server.engine.max_live = 0
        server.client.post("/v1/completions", json=body)
        found = samples(server)
    requests = "moe_serve_requests_total"
    assert found[requests, ("length", "plain")] == 2
    assert found[requests, ("stop", "plain")] == 1
    assert found[requests, ("refused", "plain")] == 2
    assert found["moe_serve_live_requests", ("plain",)] == 0
    assert found["moe_serve_time_to_first_token_seconds_count", ("plain",)] == 3
    tokens = found["moe_serve_generated_tokens_total", ("0",)]
    assert found["moe_serve_inter_token_seconds_count", ("plain",)] == tokens - 3
    assert found["moe_serve_request_seconds_count", ("plain",)] == 5


def test_metrics_of_the_ranks(server: Any) -> None:
    text = server.client.get("/metrics").text
    assert "# TYPE moe_serve_dispatch_bytes_total counter" in text
    assert "# TYPE moe_serve_waiting gauge" in text
    found = samples(server)
    assert found["moe_serve_dispatch_bytes_total", ("1",)] == 8192
    assert found["moe_serve_link_bytes_total", ("gpu>host", "1")] == 512
    assert found["moe_serve_kv_use_ratio", ("0",)] == 0.25
    assert found["moe_serve_prefix_hit_tokens_total", ("0",)] == 64
    assert found["moe_serve_step_seconds_total", ("experts", "1")] == 1.5
    assert found["moe_serve_expert_imbalance", ()] == 1.25


def test_nothing_at_the_edge_imports_torch() -> None:
    program = """
import importlib, pkgutil, sys
import moe_serve.edge
for module in pkgutil.iter_modules(moe_serve.edge.__path__):
    importlib.import_module(f"moe_serve.edge.{module.name}")
sys.exit("torch is imported" if "torch" in sys.modules else 0)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
