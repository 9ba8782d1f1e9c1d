"""Clients that leave free their sequences; a server that stops lets the others finish."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from moe_serve.edge.merge import merge

BODY = {"model": "plain", "prompt": "hello", "max_tokens": 400, "ignore_eos": True, "n": 2}


def wait_for(condition: Callable[[], bool]) -> None:
    """At most a second, the time in which a client's pages must be free."""
    deadline = time.monotonic() + 1
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("num_prompts", [1, 3])
def test_a_client_that_leaves_ends_its_sequences(
    server: Any, streamed: bool, num_prompts: int
) -> None:
    server.engine.seconds_per_token = 0.02
    body = json.dumps({**BODY, "stream": streamed, "prompt": ["hello"] * num_prompts}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    port = int(server.url.rsplit(":", 1)[1].strip("/"))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: len(server.engine.live) == 2 * num_prompts)
        if streamed:
            assert b"200 OK" in connection.recv(4096)
    wait_for(lambda: not server.engine.live)
    assert {request.request_id for request in server.engine.seen} == set(server.engine.aborted)
    metric = 'moe_serve_requests_total{finish_reason="abort",model="plain"}'
    assert metric in server.client.get("/metrics").text


def test_a_client_that_leaves_while_waiting_for_its_first_token(server: Any) -> None:
    server.engine.seconds_per_token = 30
    with pytest.raises(Exception, match="timed out"):
        server.client.post("/v1/completions", json={**BODY, "stream": True}, timeout=0.3)
    wait_for(lambda: not server.engine.live)


def test_open_streams_finish_when_the_server_stops(serve: Callable[..., Any]) -> None:
    with serve() as server:
        server.engine.seconds_per_token = 0.01
        answers: list[str] = []
        body = {**BODY, "max_tokens": 30, "n": 1, "stream": True}

        def read() -> None:
            answers.append(server.client.post("/v1/completions", json=body).text)

        reader = threading.Thread(target=read)
        reader.start()
        wait_for(lambda: bool(server.engine.live))
        server.stop()
        reader.join(10)
        assert answers[0].endswith("data: [DONE]\n\n")
        assert answers[0].count('"finish_reason":"length"') == 1
        assert server.engine.num_events == 30
        port = int(server.url.rsplit(":", 1)[1].strip("/"))
        wait_for(lambda: _refuses(port))


def _refuses(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return False
    return True


class Streams:
    """Endless streams that remember whether they were closed."""

    def __init__(self) -> None:
        self.open = 0

    async def stream(self, name: str, fails_at: int | None = None) -> AsyncGenerator[str, None]:
        self.open += 1
        try:
            for index in range(1000):
                if index == fails_at:
                    raise ValueError(name)
                yield f"{name}{index}"
                await asyncio.sleep(0)
        finally:
            self.open -= 1


def test_merge_brings_all_items_in_each_streams_order() -> None:
    async def run() -> list[str]:
        streams = Streams()
        return [item async for item in merge([streams.stream(name) for name in "abc"])]

    items = asyncio.run(run())
    assert len(items) == 3000
    for name in "abc":
        assert [item for item in items if item[0] == name] == [f"{name}{i}" for i in range(1000)]


@pytest.mark.parametrize("names", ["a", "abc"])
def test_merge_closes_every_stream(names: str) -> None:
    async def leave() -> int:
        streams = Streams()
        merged = merge([streams.stream(name) for name in names])
        await anext(merged)
        assert streams.open == len(names)
        await merged.aclose()
        return streams.open

    async def fail() -> int:
        streams = Streams()
        parts = [streams.stream(name, 5 if name == "a" else None) for name in names]
        with pytest.raises(ValueError, match="a"):
            async for _ in merge(parts):
                pass
        return streams.open

    assert asyncio.run(leave()) == 0
    assert asyncio.run(fail()) == 0
