"""Fits an expert curve to measured times: a convex piecewise-linear fit with few planes.

Method: alternate between giving each time to the plane that is largest there and fitting each
plane to its times (Magnani and Boyd 2009, "Convex piecewise-linear fitting", section 3), here with
coefficients that are not negative, so that more work never takes less time.
Shapes: P measured points.
"""

from collections.abc import Iterator

import numpy as np
import scipy
from numpy.typing import NDArray

from moe_placement.hardware.device import ExpertCurve, Plane

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_ROUNDS = 50
_NUM_RANDOM_STARTS = 8


def fit_curve(
    bytes_P: Floats, flops_P: Floats, seconds_P: Floats, num_planes: int = 4, seed: int = 0
) -> ExpertCurve:
    """The curve of at most `num_planes` planes with the least squared relative error found.

    Raises:
        ValueError: no points, or a time that is not above 0.
    """
    if seconds_P.size == 0 or not (seconds_P > 0).all():
        raise ValueError(f"{seconds_P.size} times cannot be fitted; give some, all above 0")
    work_P3 = np.stack([np.ones_like(bytes_P), bytes_P, flops_P], axis=1)
    fits = [
        _alternate(work_P3, seconds_P, plane_P)
        for plane_P in _starts(bytes_P, flops_P, num_planes, seed)
    ]
    best = min(fits, key=lambda planes: float(np.square(_errors(planes, work_P3, seconds_P)).sum()))
    return ExpertCurve(tuple(Plane(*map(float, plane)) for plane in best))


def relative_errors(
    curve: ExpertCurve, bytes_P: Floats, flops_P: Floats, seconds_P: Floats
) -> Floats:
    """Predicted over measured time, less 1, of each point."""
    work_P3 = np.stack([np.ones_like(bytes_P), bytes_P, flops_P], axis=1)
    planes = np.array([[plane.fixed, plane.per_byte, plane.per_flop] for plane in curve.planes])
    return _errors(planes, work_P3, seconds_P)


def _errors(planes: Floats, work_P3: Floats, seconds_P: Floats) -> Floats:
    predicted_P: Floats = (work_P3 @ planes.T).max(axis=1)
    return predicted_P / seconds_P - 1.0


def _starts(bytes_P: Floats, flops_P: Floats, num_planes: int, seed: int) -> Iterator[Ints]:
    """First guesses of each point's plane: by FLOPs per byte, then by nearness to random points."""
    order_P = np.argsort(np.argsort(flops_P / np.maximum(bytes_P, 1.0), kind="stable"))
    for count in range(1, num_planes + 1):
        yield order_P * count // order_P.size
    place_P2 = np.log(np.stack([bytes_P, flops_P], axis=1) + 1.0)
    random = np.random.default_rng(seed)
    for _ in range(_NUM_RANDOM_STARTS):
        centre_C2 = place_P2[random.choice(len(place_P2), min(num_planes, len(place_P2)), False)]
        yield np.square(place_P2[:, None] - centre_C2).sum(axis=2).argmin(axis=1)


def _alternate(work_P3: Floats, seconds_P: Floats, plane_P: Ints) -> Floats:
    """The best planes seen while points change planes until none does."""
    best, best_error = np.zeros((0, 3)), np.inf
    for _ in range(_MOST_ROUNDS):
        planes = np.array(
            [_plane(work_P3[plane_P == k], seconds_P[plane_P == k]) for k in np.unique(plane_P)]
        )
        error = float(np.square(_errors(planes, work_P3, seconds_P)).sum())
        if error < best_error:
            best, best_error = planes, error
        largest_P = (work_P3 @ planes.T).argmax(axis=1)
        if np.array_equal(largest_P, plane_P):
            break
        plane_P = largest_P
    return best


def _plane(work_P3: Floats, seconds_P: Floats) -> Floats:
    """Relative least squares; columns are scaled to like sizes, which nnls needs."""
    relative_P3 = work_P3 / seconds_P[:, None]
    scale_3 = relative_P3.max(axis=0)
    scale_3[scale_3 == 0.0] = 1.0
    solution, _ = scipy.optimize.nnls(relative_P3 / scale_3, np.ones_like(seconds_P))
    plane: Floats = solution / scale_3
    return plane
