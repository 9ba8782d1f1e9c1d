"""Clients of the drift benchmark in closed loops, and who watches beside them when experts move."""

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

from moe_serve.bench.stream import Stream, stream
from moe_serve.errors import ConfigError

_ANSWER_SECONDS = 60.0
# The front end answers, not the ranks, and it takes it a millisecond or two.
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """
    Attributes:
        prompt_tokens, new_tokens: of each request.
    """

    number: int
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Look:
    """At the plan of a server.

    Attributes:
        at: seconds of `time.perf_counter`, when it had answered.
        epoch: of the plan in force.
        is_moving: experts are on their way to the next one.
    """

    at: float
    epoch: int
    is_moving: bool


def drive(url: str, clients: Clients, tokens: Sequence[int], seconds: float) -> list[Stream]:
    """Each client asks again when it is answered, until the time is over.

    Args:
        tokens: words of which prompts and answers are made.

    Raises:
        ConfigError: a request failed.
    """
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(clients.number) as pool:
        futures = [
            pool.submit(_ask, url, clients, tokens, seed, end) for seed in range(clients.number)
        ]
    try:
        return [each for future in futures for each in future.result()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"a request of the drift benchmark failed: {error!r}") from error


@contextmanager
def watching(url: str) -> Iterator[list[Look]]:
    """Looks at the plan, which go on until the context ends.

    Raises:
        ConfigError: the server did not answer.
    """
    looks: list[Look] = []
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(_watch, url, looks, over)
        try:
            yield looks
        finally:
            over.set()
    try:
        future.result()
    except OSError as error:
        raise ConfigError(f"/v1/plan of the drift benchmark's server failed: {error!r}") from error


def read_plan(url: str) -> Any:
    """What `/v1/plan` says."""
    with urlopen(f"{url}/v1/plan", timeout=_ANSWER_SECONDS) as answer:
        return json.load(answer)


def _ask(url: str, clients: Clients, tokens: Sequence[int], seed: int, end: float) -> list[Stream]:
    chance = random.Random(seed)
    answers = []
    while time.perf_counter() < end:
        prompt = chance.choices(tokens, k=clients.prompt_tokens)
        answers.append(stream(url, prompt, clients.new_tokens, lambda: False, tokens))
    return answers


def _watch(url: str, looks: list[Look], over: threading.Event) -> None:
    while True:
        plan = read_plan(url)
        moving = plan["rebalancing"]["moving"] is not None
        looks.append(Look(time.perf_counter(), plan["epoch"], moving))
        if over.wait(_LOOK_SECONDS):
            return
