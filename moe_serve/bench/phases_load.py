"""The mixed load of the phases benchmark: short chats that decode, long prompts among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from moe_placement.serving.workload import Workload

from moe_serve.demo_config import VOCAB_SIZE
from moe_serve.errors import ConfigError

# Ids below are control tokens of the demo's tokenizer.
_FIRST_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKind:
    """Like requests in a Poisson stream.

    Attributes:
        rate: requests per second.
    """

    name: str
    prompt_tokens: int
    output_tokens: int
    rate: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, `at` seconds after the start."""

    at: float
    kind: RequestKind
    prompt_ids: tuple[int, ...]


def make_arrivals(kinds: Sequence[RequestKind], seconds: float, seed: int) -> tuple[Arrival, ...]:
    """Requests of all kinds in the order in which they come; the same seed gives the same ones.

    Raises:
        ConfigError: a kind has none in so short a time.
    """
    random = np.random.default_rng(seed)
    found: list[Arrival] = []
    for kind in kinds:
        times = _poisson(kind.rate, seconds, random)
        if not times:
            raise ConfigError(
                f"no {kind.name} request comes in {seconds:g} s at {kind.rate:g} a second; raise "
                "--stream-seconds"
            )
        for at in times:
            prompt = random.integers(_FIRST_TOKEN, VOCAB_SIZE, kind.prompt_tokens)
            found.append(Arrival(at, kind, tuple(prompt.tolist())))
    return tuple(sorted(found, key=lambda arrival: arrival.at))


def mean_workload(kinds: Sequence[RequestKind]) -> Workload:
    """All kinds as the one stream of varied requests that formulas know of."""
    rates = np.array([kind.rate for kind in kinds])
    prompt, prompt_cv = _moments([kind.prompt_tokens for kind in kinds], rates)
    output, output_cv = _moments([kind.output_tokens for kind in kinds], rates)
    return Workload(
        prompt_tokens=prompt,
        output_tokens=output,
        rate=float(rates.sum()),
        prompt_cv=prompt_cv,
        output_cv=output_cv,
    )


def _poisson(rate: float, seconds: float, random: np.random.Generator) -> list[float]:
    times: list[float] = []
    now = float(random.exponential(1 / rate))
    while now < seconds:
        times.append(now)
        now += float(random.exponential(1 / rate))
    return times


def _moments(values: Sequence[float], weights: np.ndarray) -> tuple[float, float]:
    """Mean and coefficient of variation."""
    mean = float(np.average(values, weights=weights))
    variance = float(np.average((np.array(values) - mean) ** 2, weights=weights))
    return mean, sqrt(variance) / mean
