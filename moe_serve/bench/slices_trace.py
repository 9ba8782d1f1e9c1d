"""Bursts of requests to small models, and what they take of a device."""

from dataclasses import dataclass

import numpy as np

from moe_serve.bench.slices_job import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Requests that come one behind the other for a while, then none for a while.

    Attributes:
        duty: share of time in which they come.
        burst_seconds: of a burst in the mean; its length is within half of that, either way.
        request_seconds: from one request of a burst to the next.
    """

    duty: float
    burst_seconds: float
    request_seconds: float
    prompt_tokens: int
    output_tokens: int

    def arrivals(self, tenant: int, seconds: float, seed: int) -> list[Arrival]:
        """Of one tenant, in order, in `duty` of the seconds exactly but for a request."""
        chance = np.random.default_rng([seed, tenant])
        count = max(1, round(self.duty * seconds / self.burst_seconds))
        on = _parts(chance, count, self.duty * seconds)
        off = _parts(chance, count, (1 - self.duty) * seconds)
        # A phase of its own: the first pause is cut in two, of which one comes last.
        begins = np.cumsum(off) + np.concatenate([[0.0], np.cumsum(on)[:-1]])
        begins -= off[0] * chance.uniform()
        return [
            Arrival(
                at=float(begin + index * self.request_seconds),
                tenant=tenant,
                prompt_tokens=self.prompt_tokens,
                output_tokens=self.output_tokens,
            )
            for begin, length in zip(begins, on, strict=True)
            for index in range(max(1, round(length / self.request_seconds)))
        ]


def _parts(chance: np.random.Generator, count: int, total: float) -> list[float]:
    """Of a total, each within half of the mean either way, before they are made to add up."""
    weights = chance.uniform(0.5, 1.5, count)
    parts: list[float] = (total * weights / weights.sum()).tolist()
    return parts
