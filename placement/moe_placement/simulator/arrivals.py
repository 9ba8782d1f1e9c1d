"""When requests come: Poisson, in bursts, or each when another one ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.scheduler import SimulatedRequest

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Clients that each send their next request when their last one has ended.

    Attributes:
        requests: taken in turn; their arrivals are not looked at.
        think_seconds: between an end and the next request.
    """

    requests: Sequence[SimulatedRequest]
    concurrency: int
    think_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.concurrency < 1 or not 0 <= self.think_seconds < inf:
            raise SimulationError(
                f"concurrency is {self.concurrency} and think_seconds {self.think_seconds:g}; "
                "they must be at least 1 and at least 0"
            )


def poisson_arrivals(rate: float, num_requests: int, seed: int) -> Floats:
    """Seconds of requests that come independently of each other, `rate` a second in the mean."""
    return gamma_arrivals(rate, 1.0, num_requests, seed)


def gamma_arrivals(rate: float, cv: float, num_requests: int, seed: int) -> Floats:
    """Seconds of requests with gamma-distributed gaps.

    Args:
        cv: coefficient of variation of the gaps: 0 is a steady beat, 1 is Poisson, more is
            in bursts.

    Raises:
        SimulationError: names the figure that cannot be.
    """
    _check_positive(rate=rate, num_requests=num_requests)
    if not 0 <= cv < inf:
        raise SimulationError(f"cv is {cv:g}; a coefficient of variation is 0 or more")
    if cv == 0:
        return np.arange(1, num_requests + 1) / rate
    shape = 1 / cv**2
    gaps = np.random.default_rng(seed).gamma(shape, 1 / (rate * shape), num_requests)
    return np.cumsum(gaps)


def on_off_arrivals(
    rate: float, on_seconds: float, off_seconds: float, num_requests: int, seed: int
) -> Floats:
    """Seconds of Poisson requests in bursts, and none between them.

    Bursts and the quiet between them last exponentially long; over all of it, `rate` requests
    come a second in the mean.
    """
    _check_positive(rate=rate, on_seconds=on_seconds, num_requests=num_requests)
    if not 0 <= off_seconds < inf:
        raise SimulationError(f"off_seconds is {off_seconds:g}; it must be 0 or more")
    random = np.random.default_rng(seed)
    rate_on = rate * (on_seconds + off_seconds) / on_seconds
    on_times = np.cumsum(random.exponential(1 / rate_on, num_requests))
    num_bursts = 1
    ends = np.cumsum(random.exponential(on_seconds, num_bursts))
    while ends[-1] < on_times[-1]:
        more = np.cumsum(random.exponential(on_seconds, len(ends)))
        ends = np.concatenate([ends, ends[-1] + more])
    quiet = np.cumsum(random.exponential(off_seconds, len(ends)))
    num_pauses = np.searchsorted(ends, on_times)
    return np.asarray(on_times + np.concatenate([[0.0], quiet])[num_pauses])


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < inf:
            raise SimulationError(f"{name} is {value:g}; it must be above 0")
