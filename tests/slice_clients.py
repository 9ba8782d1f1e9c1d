"""Servers of several models: their configs, and clients that ask, keep busy and count."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
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
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    clients = asyncio.run_coroutine_threadsafe(_ask_all(url, models, num_clients, num_tokens), loop)
    try:
        time.sleep(0.5)
        yield
        assert not clients.done(), "a client has ended"
    finally:
        clients.cancel()
        with suppress(CancelledError, TimeoutError):
            clients.result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        _wait_until_idle(url)


def _wait_until_idle(url: str, seconds: float = 30.0) -> None:
    """Until the server has noticed that all have hung up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        slices = httpx.get(f"{url}/v1/slices").json()["data"]
        if not any(used["running"] for each in slices for used in each["used"]):
            return
        time.sleep(0.05)
    raise AssertionError("requests go on although their clients have hung up")


async def _ask_all(url: str, models: Sequence[str], num_clients: int, num_tokens: int) -> None:
    async with httpx.AsyncClient(timeout=60) as client:

        async def ask(model: str, seed: int) -> None:
            (prompt,) = prompts_of((60,), seed=seed)
            body = _body(model, prompt, num_tokens + 61 * seed)
            while True:
                (await client.post(f"{url}/v1/completions", json=body)).raise_for_status()

        await asyncio.gather(*(ask(model, seed) for model in models for seed in range(num_clients)))


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
