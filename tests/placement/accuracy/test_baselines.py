"""Baselines learn what there is to learn, and never from the row itself."""

import sys
from dataclasses import replace

import pytest
from moe_placement.accuracy.baselines import (
    MissingPackageError,
    boosted_trees,
    nearest_neighbour,
)
from moe_placement.accuracy.evaluate import accuracy_of, cross_validate, predict_all
from moe_placement.accuracy.folds import configuration_folds, system_folds
from moe_placement.accuracy.rows import Row


def test_the_nearest_row_is_the_one_with_the_nearest_load(many: tuple[Row, ...]) -> None:
    predict = nearest_neighbour(many)
    first, second = many[0], many[1]
    asked = replace(first, concurrency=5)
    assert predict([first, asked]) == [(first.measured_ttft, first.measured_tpot)] * 2
    assert predict([replace(first, concurrency=12)]) == [
        (second.measured_ttft, second.measured_tpot)
    ]


def test_another_name_is_further_than_another_load(many: tuple[Row, ...]) -> None:
    first = many[0]
    other = replace(first, backend="trtllm", measured_ttft=7.0)
    same = replace(first, concurrency=first.concurrency and 2 * first.concurrency)
    predict = nearest_neighbour([other, same])
    assert predict([first]) == [(same.measured_ttft, same.measured_tpot)]


def test_trees_fit_what_they_have_seen(many: tuple[Row, ...]) -> None:
    seen = accuracy_of(predict_all(many, boosted_trees(many)))
    assert seen.tpot_error < 0.1
    blind = [replace(row, measured_tpot=0.5) for row in many]
    assert predict_all(many[:1], boosted_trees(blind))[0].tpot == pytest.approx(0.5, rel=0.01)


def test_both_predict_rows_of_systems_and_names_that_they_never_saw(many: tuple[Row, ...]) -> None:
    for learner in (nearest_neighbour, boosted_trees):
        found = cross_validate(system_folds(many), learner)
        assert accuracy_of(found).tpot_error < 1.0
    predict = boosted_trees(many)
    ((ttft, tpot),) = predict([replace(many[0], backend="new")])
    assert 0 < tpot < ttft


def test_neighbours_never_see_their_own_configuration(many: tuple[Row, ...]) -> None:
    unique = [replace(row, measured_tpot=0.001 * row.line) for row in many]
    for point in cross_validate(configuration_folds(unique), nearest_neighbour):
        assert point.tpot != point.row.measured_tpot


def test_without_scikit_learn_the_command_to_install_it_is_said(
    many: tuple[Row, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackageError, match=r"^pip install moe-serve\[accuracy\]$"):
        boosted_trees(many)
