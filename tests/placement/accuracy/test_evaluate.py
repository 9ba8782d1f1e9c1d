"""Errors, ratios and folds, on predictions whose errors are known."""

from collections.abc import Sequence

import pytest
from moe_placement.accuracy.evaluate import (
    Predicted,
    Predictor,
    accuracy_by,
    accuracy_of,
    cross_validate,
    predict_all,
)
from moe_placement.accuracy.folds import configuration_folds
from moe_placement.accuracy.rows import Row


def test_errors_are_shares_of_what_was_measured(many: tuple[Row, ...]) -> None:
    found = accuracy_of([Predicted(r, 0.5 * r.measured_ttft, 1.2 * r.measured_tpot) for r in many])
    assert found.num_rows == len(many)
    assert (found.ttft_error, found.ttft_ratio) == pytest.approx((0.5, 0.5))
    assert (found.tpot_error, found.tpot_ratio) == pytest.approx((0.2, 1.2))


def test_medians_do_not_mind_one_wild_row(many: tuple[Row, ...]) -> None:
    exact = [Predicted(row, row.measured_ttft, row.measured_tpot) for row in many]
    wild = Predicted(many[0], 1e6, 1e6)
    assert accuracy_of([wild, *exact]).tpot_error == 0.0


def test_groups_are_told_apart(many: tuple[Row, ...]) -> None:
    points = [
        Predicted(
            row, row.measured_ttft, (2 if row.system == "b200_sxm" else 1) * row.measured_tpot
        )
        for row in many
    ]
    found = accuracy_by(points, lambda row: (row.system,))
    assert list(found) == [("b200_sxm",), ("h200_sxm",)]
    assert found["b200_sxm",].tpot_error == pytest.approx(1.0)
    assert found["h200_sxm",].tpot_error == 0.0


def test_each_fold_is_predicted_by_what_the_others_taught(many: tuple[Row, ...]) -> None:
    taught: list[frozenset[int]] = []
    told: list[tuple[int, int]] = []

    def learn(train: Sequence[Row]) -> Predictor:
        known = frozenset(row.line for row in train)
        taught.append(known)

        def predict(rows: Sequence[Row]) -> list[tuple[float, float]]:
            assert not known & {row.line for row in rows}
            return [(1.0, 2.0)] * len(rows)

        return predict

    folds = configuration_folds(many)
    found = cross_validate(folds, learn, lambda done, total: told.append((done, total)))
    assert len(taught) == 5
    assert told == [(done, 5) for done in range(1, 6)]
    assert sorted(point.row.line for point in found) == [row.line for row in many]
    assert {(point.ttft, point.tpot) for point in found} == {(1.0, 2.0)}


def test_a_prediction_short_of_rows_is_a_fault(many: tuple[Row, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        predict_all(many, lambda rows: [(1.0, 1.0)])
