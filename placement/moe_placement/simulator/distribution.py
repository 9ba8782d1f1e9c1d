"""Many seconds, in a few figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean, percentiles and largest of some seconds; all 0 where there are none."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    largest: float


def weighted_quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], shares: ArrayLike
) -> NDArray[np.float64]:
    """The least value at or below which lies each share (0 to 1) of the weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    wanted = np.asarray(shares) * reached[-1]
    # A hair below, for sums round; without weight below it a value is no quantile.
    places = np.searchsorted(reached, wanted * (1 - 1e-12), side="left")
    return np.asarray(values[order][np.minimum(places, len(values) - 1)])


def distribution_of(values: ArrayLike, weights: ArrayLike | None = None) -> Distribution:
    """Of values that each count once, or as often as `weights` says."""
    array = np.asarray(values, np.float64)
    counts = np.ones_like(array) if weights is None else np.asarray(weights, np.float64)
    array, counts = array[counts > 0], counts[counts > 0]
    if not len(array):
        return Distribution(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    mean = float(array @ counts / counts.sum())
    p50, p90, p95, p99 = map(float, weighted_quantiles(array, counts, (0.5, 0.9, 0.95, 0.99)))
    return Distribution(int(counts.sum()), mean, p50, p90, p95, p99, float(array.max()))
