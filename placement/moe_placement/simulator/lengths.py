"""How long prompts and answers are."""

from math import inf

import numpy as np
from numpy.typing import NDArray

from moe_placement.simulator.errors import SimulationError

Ints = NDArray[np.int64]


def fixed_lengths(tokens: int, num_requests: int) -> Ints:
    """Lengths that are all alike; SimulationError as `lognormal_lengths` has it."""
    _check(tokens, 0.0, num_requests)
    return np.full(num_requests, tokens, np.int64)


def lognormal_lengths(mean: float, cv: float, num_requests: int, seed: int) -> Ints:
    """Whole lengths of at least 1 token, lognormal around a mean.

    Args:
        cv: standard deviation over mean; 0 is all alike.

    Raises:
        SimulationError: mean below 1, or cv below 0, or nobody to have the lengths.
    """
    _check(mean, cv, num_requests)
    variance = np.log1p(cv**2)
    normal = np.random.default_rng(seed).standard_normal(num_requests)
    lengths = mean * np.exp(np.sqrt(variance) * normal - variance / 2)
    return np.asarray(np.maximum(np.rint(lengths), 1), np.int64)


def _check(mean: float, cv: float, num_requests: int) -> None:
    if not (1 <= mean < inf and 0 <= cv < inf):
        raise SimulationError(
            f"mean is {mean:g} tokens and cv {cv:g}; give at least 1 and at least 0"
        )
    if num_requests < 1:
        raise SimulationError(f"num_requests is {num_requests}; it must be above 0")
