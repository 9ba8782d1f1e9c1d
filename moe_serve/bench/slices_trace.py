"""Bursts of requests to small models, as a trace."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moe_serve.bench.slices_job import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """So many requests come at once and keep the device busy for a while, then none for a while.

    Attributes:
        duty: share of time in which a device that has only these is busy with them.
        burst_seconds: of a burst there in the mean; each is within half of that, either way.
        token_seconds: of each token, while so many sequences are answered there.
    """

    duty: float
    burst_seconds: float
    token_seconds: float
    num_sequences: int
    prompt_tokens: int
    max_output_tokens: int

    def arrivals(self, tenant: int, seconds: float, seed: int) -> list[Arrival]:
        """Of one tenant, in order; they are the device's work for `duty` of the seconds."""
        return [
            Arrival(
                at=begin,
                tenant=tenant,
                prompt_tokens=self.prompt_tokens,
                output_tokens=min(
                    max(1, round(length / self.token_seconds)), self.max_output_tokens
                ),
            )
            for begin, length in self._bursts(np.random.default_rng([seed, tenant]), seconds)
            for _ in range(self.num_sequences)
        ]

    def _bursts(self, chance: np.random.Generator, seconds: float) -> Iterator[tuple[float, float]]:
        """Begin and seconds of each."""
        count = max(1, round(self.duty * seconds / self.burst_seconds))
        lengths = _parts(chance, count, self.duty * seconds)
        pauses = _parts(chance, count, (1 - self.duty) * seconds)
        # A phase of its own: of the first pause a part comes last.
        now = -chance.uniform() * pauses[0]
        for length, pause in zip(lengths, pauses, strict=True):
            now += pause
            yield now, length
            now += length


def _parts(chance: np.random.Generator, count: int, total: float) -> list[float]:
    """Of a total, each within half of the mean either way before they are made to add up."""
    weights = chance.uniform(0.5, 1.5, count)
    parts: list[float] = (total * weights / weights.sum()).tolist()
    return parts
