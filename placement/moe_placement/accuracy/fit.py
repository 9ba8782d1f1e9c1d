"""Fit of the cost model's coefficients to measured rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import scipy
from numpy.typing import NDArray

from moe_placement.accuracy.predict import RowStack, predict_stacks, stack_rows
from moe_placement.accuracy.rows import Row
from moe_placement.cost.coefficients import Coefficients

Floats = NDArray[np.float64]
# Errors of the logarithm beyond which a row pulls less: what no mechanism here explains
# (speculation that no column tells of, a first run that compiles) must not bend the rest.
_TTFT_ERROR = 0.35
_TPOT_ERROR = 0.12
# Rows that give both phases workers of their own are few, and their TPOT is of decoding alone.
_APART_WEIGHT = 4.0
# Pull to the prior, over the whole width between a coefficient's bounds.
_PRIOR_WEIGHT = 6.0
_SPREAD = 0.05
_MAX_STEPS = 40


def fit(
    rows: Sequence[Row],
    *,
    start: Coefficients | None = None,
    seed: int = 0,
    max_steps: int = _MAX_STEPS,
) -> Coefficients:
    """The coefficients that predict `rows` best: least squares of the logarithms of TTFT and
    TPOT under a robust loss, within each coefficient's bounds and drawn to `start`.

    The first pass is of soft-l1 loss, which has no false minima to speak of; the second, of
    Cauchy's, starts from where that ends.

    Args:
        start: by default the physical priors.
        seed: of the small step off the priors that the search starts with.
        max_steps: of each pass.

    Raises:
        UnpredictableError: a row lacks what a prediction needs.
    """
    goal = _Goal.of(rows, start or Coefficients())
    prior = goal.space.prior
    noise = np.random.default_rng(seed).normal(scale=_SPREAD, size=len(prior))
    point: Floats = np.clip(prior + noise, 0.01, 0.99)
    for soften in (_soft_l1, _cauchy):
        found = scipy.optimize.least_squares(
            goal.residuals,
            point,
            bounds=(0.0, 1.0),
            x_scale=0.1,
            max_nfev=max_steps,
            args=(soften,),
        )
        point = found.x
    return goal.space.coefficients(point)


@dataclass(frozen=True, slots=True, eq=False)
class _Goal:
    """What the fit makes small. Arrays hold all rows' TTFT, then all rows' TPOT."""

    space: "_Space"
    stacks: list[RowStack]
    measured: Floats
    scale: Floats
    weight: Floats

    @classmethod
    def of(cls, rows: Sequence[Row], prior: Coefficients) -> "_Goal":
        ttft = [row.measured_ttft for row in rows]
        tpot = [row.measured_tpot for row in rows]
        apart = [_APART_WEIGHT if row.mode == "disagg" else 1.0 for row in rows]
        return cls(
            space=_Space.of(prior),
            stacks=stack_rows(rows),
            measured=np.log(ttft + tpot),
            scale=np.repeat([_TTFT_ERROR, _TPOT_ERROR], len(rows)),
            weight=np.array([1.0] * len(rows) + apart),
        )

    def residuals(self, point: Floats, soften: Callable[[Floats], Floats]) -> Floats:
        predicted = predict_stacks(self.stacks, self.space.coefficients(point))
        errors = (np.log(np.concatenate(predicted)) - self.measured) / self.scale
        pull = _PRIOR_WEIGHT * (point - self.space.prior)
        return np.concatenate([self.weight * soften(errors), pull])


def _soft_l1(errors: Floats) -> Floats:
    """Residuals whose squares are the soft-l1 loss of the errors."""
    softened: Floats = np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1))
    return softened


def _cauchy(errors: Floats) -> Floats:
    """Residuals whose squares are the Cauchy loss, which lets go of what is far off."""
    softened: Floats = np.sign(errors) * np.sqrt(np.log1p(errors**2))
    return softened


@dataclass(frozen=True, slots=True)
class _Space:
    """Coefficients as points of the unit cube, each from its low bound (0) to its high (1)."""

    names: tuple[str, ...]
    low: Floats
    width: Floats
    prior: Floats

    @classmethod
    def of(cls, prior: Coefficients) -> "_Space":
        entries = fields(prior)
        low = np.array([entry.metadata["low"] for entry in entries])
        width = np.array([entry.metadata["high"] for entry in entries]) - low
        values = np.array([getattr(prior, entry.name) for entry in entries])
        return cls(tuple(entry.name for entry in entries), low, width, (values - low) / width)

    def coefficients(self, point: Floats) -> Coefficients:
        values = self.low + self.width * point
        return Coefficients(**dict(zip(self.names, values.tolist(), strict=True)))
