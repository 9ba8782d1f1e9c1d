"""Percentiles of a wait of which the mean is known."""

import math
from statistics import NormalDist


def tail_wait(mean: float, busy: float, percentile: float, deviation: float = math.inf) -> float:
    """Seconds that a wait stays below at a percentile.

    None wait while the server is idle, and the others' wait is taken as exponential, which it
    is in heavy traffic (Kingman, 1961). In a full closed loop the queue is all clients but those
    who are elsewhere, so it varies less than that: the wait is then taken as normal.

    Args:
        mean: over all, those who do not wait among them.
        busy: probability that one waits.
        deviation: at most.
    """
    if math.isinf(mean) or percentile >= 1:
        return math.inf
    if deviation < mean:
        return max(0.0, mean + deviation * NormalDist().inv_cdf(max(percentile, 1e-9)))
    if percentile <= 1 - busy or mean <= 0:
        return 0.0
    return mean / busy * math.log(busy / (1 - percentile))
