"""The chance that bursty tenants want more of a device than it has."""

import math
from collections.abc import Iterable

import numpy as np

# Shares are counted in hundredths of a percent, rounded up: exact for whole ones of these, a chance
# that is too high by little for others.
GRID = 10_000
_ROUNDING = 1e-6


def chance_above(capacity: float, bursts: Iterable[tuple[float, float]]) -> float:
    """The chance that the demand of independent tenants is above a capacity at some moment.

    Exact, by convolution: one tenant after another is busy or not, and what is above the capacity
    stays there.

    Args:
        capacity: as the shares are counted.
        bursts: share and duty of each tenant: the share that it wants while it is busy, and the
            chance that it is.
    """
    room = math.floor(capacity * GRID + _ROUNDING)
    if room < 0:
        return 1.0
    chance_U = np.zeros(room + 1)
    chance_U[0] = 1.0
    above = 0.0
    for share, duty in bursts:
        units = math.ceil(share * GRID - _ROUNDING)
        if units <= 0:
            continue
        above += duty * float(chance_U[max(room + 1 - units, 0) :].sum())
        shifted_U = np.zeros_like(chance_U)
        shifted_U[units:] = chance_U[: max(room + 1 - units, 0)]
        chance_U = (1 - duty) * chance_U + duty * shifted_U
    return min(above, 1.0)
