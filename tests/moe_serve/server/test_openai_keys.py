"""API keys, and the warning where there are none, with servers of their own."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import openai
import pytest
from live_server import LiveServer, live_server, server_config

KEY = "the key of team a"
WARNING = "may use this server without a key"


@pytest.fixture(scope="module")
def keyed_server(
    served_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text(f"# team a\n{sha256(KEY.encode()).hexdigest()}\n")
    section = {"host": "0.0.0.0", "port": 0, "api_keys": str(folder / "keys")}
    with live_server(folder, 1, server_config(served_path, 1, server=section)) as running:
        yield running


@pytest.mark.slow
def test_a_known_key_gets_in_and_no_other(
    keyed_server: LiveServer, connect: Callable[..., openai.OpenAI]
) -> None:
    for key in ("team b", sha256(KEY.encode()).hexdigest(), "the key"):
        with connect(keyed_server, key) as stranger:
            with pytest.raises(openai.AuthenticationError) as raised:
                stranger.completions.create(model="tiny", prompt="Hello")
            assert raised.value.code == "invalid_api_key" and raised.value.status_code == 401
            assert key not in raised.value.message
    with connect(keyed_server, KEY) as client:
        answer = client.completions.create(model="tiny", prompt="Hello", max_tokens=3, stream=True)
        assert [chunk.choices[0].finish_reason for chunk in answer][-1] == "length"


@pytest.mark.slow
def test_without_a_key_only_health_and_metrics_answer(keyed_server: LiveServer) -> None:
    with httpx.Client(base_url=keyed_server.url, trust_env=False) as http:
        for path in ("/health", "/ready", "/metrics"):
            assert http.get(path).status_code == 200
        assert http.get("/v1/models").status_code == 401
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            assert http.post(path, json={}).status_code == 401


@pytest.mark.slow
def test_who_asks_for_keys_is_not_warned(keyed_server: LiveServer) -> None:
    assert WARNING not in keyed_server.output


def test_loopback_is_not_warned_of(server: LiveServer) -> None:
    assert WARNING not in server.output and server.url.startswith("http://127.0.0.1:")


@pytest.mark.slow
def test_who_is_exposed_without_keys_is_warned(thinking_server: LiveServer) -> None:
    (line,) = [line for line in thinking_server.output.splitlines() if WARNING in line]
    assert "WARNING" in line and "0.0.0.0" in line and "server.api_keys" in line
