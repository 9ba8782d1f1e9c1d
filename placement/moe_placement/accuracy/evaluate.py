"""Predictions beside measurements: of all rows at once, or of each fold by what the others fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moe_placement.accuracy.folds import Fold
from moe_placement.accuracy.rows import Row

# TTFT and TPOT of each row, in seconds.
Predictor = Callable[[Sequence[Row]], Sequence[tuple[float, float]]]
# Rows to learn from, to a predictor of others.
Learner = Callable[[Sequence[Row]], Predictor]


@dataclass(frozen=True, slots=True)
class Predicted:
    """One row and what was predicted for it, in seconds."""

    row: Row
    ttft: float
    tpot: float

    @property
    def ttft_ratio(self) -> float:
        """Predicted by measured."""
        return self.ttft / self.row.measured_ttft

    @property
    def tpot_ratio(self) -> float:
        return self.tpot / self.row.measured_tpot


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Attributes:
    ttft_error: median of |predicted - measured| / measured.
    ttft_ratio: median of predicted / measured.
    """

    num_rows: int
    ttft_error: float
    ttft_ratio: float
    tpot_error: float
    tpot_ratio: float


def predict_all(rows: Sequence[Row], predictor: Predictor) -> tuple[Predicted, ...]:
    return tuple(
        Predicted(row, ttft, tpot) for row, (ttft, tpot) in zip(rows, predictor(rows), strict=True)
    )


def cross_validate(
    folds: Sequence[Fold], learner: Learner, tell: Callable[[int, int], object] | None = None
) -> tuple[Predicted, ...]:
    """Learn from each fold's training rows and predict its test rows.

    Args:
        tell: called after each fold with how many are done, of how many.
    """
    predicted: list[Predicted] = []
    for number, fold in enumerate(folds, start=1):
        predicted += predict_all(fold.test, learner(fold.train))
        if tell is not None:
            tell(number, len(folds))
    return tuple(predicted)


def accuracy_of(predicted: Sequence[Predicted]) -> Accuracy:
    """Medians over at least one row."""
    ttft = np.array([point.ttft_ratio for point in predicted])
    tpot = np.array([point.tpot_ratio for point in predicted])
    return Accuracy(
        num_rows=len(predicted),
        ttft_error=float(np.median(np.abs(ttft - 1))),
        ttft_ratio=float(np.median(ttft)),
        tpot_error=float(np.median(np.abs(tpot - 1))),
        tpot_ratio=float(np.median(tpot)),
    )


def accuracy_by(
    predicted: Sequence[Predicted], key: Callable[[Row], tuple[str, ...]]
) -> dict[tuple[str, ...], Accuracy]:
    """The accuracy of each group of rows, in the order of their keys."""
    groups: dict[tuple[str, ...], list[Predicted]] = {}
    for point in predicted:
        groups.setdefault(key(point.row), []).append(point)
    return {name: accuracy_of(groups[name]) for name in sorted(groups)}
