"""Fits of expert curves: exact where the truth has planes, robust to noise, never falling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_placement.hardware.curve_fit import Floats, fit_curve, relative_errors
from moe_placement.hardware.device import ExpertCurve, Plane

TRUTH = ExpertCurve(
    (Plane(2e-4, 5e-11, 0.0), Plane(0.0, 2e-11, 4.6e-12), Plane(1.5e-4, 3e-11, 3.8e-12))
)
EXPERT_BYTES, ROW_FLOPS = 9.4e6, 9.4e6


def grid(experts: tuple[int, ...], rows: tuple[int, ...]) -> tuple[Floats, Floats, Floats]:
    """Bytes, FLOPs and true seconds of every pair."""
    count, each = (axis.ravel().astype(float) for axis in np.meshgrid(experts, rows))
    num_bytes, num_flops = count * EXPERT_BYTES, count * each * ROW_FLOPS
    seconds = np.array([TRUTH.seconds(*pair) for pair in zip(num_bytes, num_flops, strict=True)])
    return num_bytes, num_flops, seconds


SEEN = grid((1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64, 128, 256))
UNSEEN = grid((3, 6, 12), (3, 6, 12, 24, 48, 96, 192))


def test_planes_are_found_again() -> None:
    curve = fit_curve(*SEEN)
    assert 2 <= len(curve.planes) <= 4
    assert np.abs(relative_errors(curve, *SEEN)).max() < 0.01
    assert np.abs(relative_errors(curve, *UNSEEN)).max() < 0.02


def test_one_plane_is_not_enough() -> None:
    errors = np.abs(relative_errors(fit_curve(*SEEN, num_planes=1), *SEEN))
    assert errors.max() > 0.15


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_averaged_out(seed: int) -> None:
    num_bytes, num_flops, seconds = SEEN
    noise = np.random.default_rng(seed).lognormal(0, 0.1, seconds.size)
    curve = fit_curve(num_bytes, num_flops, seconds * noise)
    assert np.median(np.abs(relative_errors(curve, *UNSEEN))) < 0.05


def test_the_same_seed_gives_the_same_curve() -> None:
    assert fit_curve(*SEEN, seed=3) == fit_curve(*SEEN, seed=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=12))
def test_any_times_give_a_curve_that_never_falls(seconds: list[float]) -> None:
    num_bytes, num_flops, _ = (column[: len(seconds)] for column in SEEN)
    curve = fit_curve(num_bytes, num_flops, np.array(seconds))
    assert 1 <= len(curve.planes) <= 4
    assert min(min(plane.fixed, plane.per_byte, plane.per_flop) for plane in curve.planes) >= 0
    assert np.isfinite(relative_errors(curve, num_bytes, num_flops, np.array(seconds))).all()


@pytest.mark.parametrize("seconds", [[], [0.0], [1.0, -1.0]])
def test_times_that_cannot_be_fitted(seconds: list[float]) -> None:
    work = np.ones(len(seconds))
    with pytest.raises(ValueError, match="all above 0"):
        fit_curve(work, work, np.array(seconds))
