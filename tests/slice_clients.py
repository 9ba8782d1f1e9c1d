"""Servers of several models: their configs, and clients that ask, keep busy and count."""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from rank_jobs import prompts_of

ADMIN = "the-admin-key"
ADMIN_HEADERS = {"authorization": f"Bearer {ADMIN}"}
GENERATING = {"big": "deepseek_v3", "small": "llama", "little": "qwen3"}
PROMPTS = prompts_of((40, 7, 90, 21), seed=5)
NUM_TOKENS = 24

# What a model says after each of PROMPTS, by model.
Answers = Mapping[str, list[str]]


def slices_config(
    paths: Mapping[str, Path], num_ranks: int, slices: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """
    Args:
        slices: by model, the fields of its entry besides path, name and dtype.
    """
    keys = folder / "admin.txt"
    keys.write_text(sha256(ADMIN.encode()).hexdigest())
    return {
        "models": [
            {"path": str(paths[name]), "name": name, "dtype": "float32", **fields}
            for name, fields in slices.items()
        ],
        "pools": [{"name": "host", "device": "cpu", "ranks": num_ranks, "threads": 1}],
        "scheduler": {"max_tokens_per_step": 256},
        "cache": {"page_size": 16},
        "server": {"port": 0, "admin_keys": str(keys)},
    }


def generate(
    url: str, model: str, prompt: Sequence[int], num_tokens: int = NUM_TOKENS
) -> httpx.Response:
    """The answer to a request for the likeliest tokens."""
    body = _body(model, prompt, num_tokens)
    return httpx.post(f"{url}/v1/completions", json=body, timeout=60)


def _body(model: str, prompt: Sequence[int], num_tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": num_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def text_of(response: httpx.Response) -> str:
    return str(response.raise_for_status().json()["choices"][0]["text"])


@contextmanager
def busy(
    url: str, models: Sequence[str], num_clients: int = 2, num_tokens: int = 400
) -> Iterator[None]:
    """Each model has clients that ask again and again; at the end they hang up.

    Their answers differ in length, so that not all of them end at once.
    """
    clients = _Clients(url, models, num_clients, num_tokens)
    clients.start()
    try:
        time.sleep(0.5)
        yield
    finally:
        clients.stop()
        _wait_until_idle(url)
    assert clients.failures == []


def _wait_until_idle(url: str, seconds: float = 30.0) -> None:
    """Until the server has noticed that all have hung up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        slices = httpx.get(f"{url}/v1/slices").json()["data"]
        if not any(used["running"] for each in slices for used in each["used"]):
            return
        time.sleep(0.05)
    raise AssertionError("requests go on although their clients have hung up")


class _Clients:
    """A thread whose clients ask until it is told to stop."""

    def __init__(self, url: str, models: Sequence[str], num_clients: int, num_tokens: int) -> None:
        self._url = url
        self._asked = [
            (model, seed, num_tokens + 61 * seed) for model in models for seed in range(num_clients)
        ]
        self._thread = Thread(target=lambda: asyncio.run(self._run()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_over = asyncio.Event()
        self._has_begun = threading.Event()
        self.failures: list[BaseException] = []

    def start(self) -> None:
        self._thread.start()
        assert self._has_begun.wait(10)

    def stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_begun.set()
        async with httpx.AsyncClient(timeout=60) as client:
            tasks = [asyncio.create_task(self._ask(client, *each)) for each in self._asked]
            await self._is_over.wait()
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self.failures = [
                end
                for end in ends
                if end is not None and not isinstance(end, asyncio.CancelledError)
            ]

    async def _ask(self, client: httpx.AsyncClient, model: str, seed: int, num_tokens: int) -> None:
        (prompt,) = prompts_of((60,), seed=seed)
        body = _body(model, prompt, num_tokens)
        while True:
            (await client.post(f"{self._url}/v1/completions", json=body)).raise_for_status()


def used_seconds(url: str) -> dict[str, dict[int, tuple[float, float]]]:
    """Of the device, and in all since the model came, by model and rank."""
    slices = httpx.get(f"{url}/v1/slices").json()["data"]
    return {
        each["id"]: {used["rank"]: (used["seconds"], used["lifetime"]) for used in each["used"]}
        for each in slices
    }


def shares_within(url: str, seconds: float) -> dict[str, dict[int, float]]:
    """The share of each rank's time that each model has while so many seconds pass."""
    before = used_seconds(url)
    time.sleep(seconds)
    shares: dict[str, dict[int, float]] = {}
    for model, ranks in used_seconds(url).items():
        for rank, (used, lifetime) in ranks.items():
            used_before, lifetime_before = before[model][rank]
            shares.setdefault(model, {})[rank] = (used - used_before) / max(
                lifetime - lifetime_before, 0.1
            )
    return shares
