"""Folds: each configuration whole in one test part, and nowhere else."""

from dataclasses import replace

import pytest
from moe_placement.accuracy.folds import configuration_folds, configuration_of, system_folds
from moe_placement.accuracy.rows import Row


def test_load_and_version_make_no_new_configuration(many: tuple[Row, ...]) -> None:
    row = many[0]
    again = replace(row, concurrency=99, batch_size=99, backend_version="2", id="x", line=7)
    assert configuration_of(again) == configuration_of(row)
    assert configuration_of(replace(row, isl=17)) != configuration_of(row)
    assert configuration_of(replace(row, moe_ep_size=None)) != configuration_of(row)
    assert len({configuration_of(row) for row in many}) == 12


def test_every_row_is_tested_once_and_no_configuration_is_split(many: tuple[Row, ...]) -> None:
    folds = configuration_folds(many)
    assert len(folds) == 5
    tested = [row for fold in folds for row in fold.test]
    assert sorted(row.line for row in tested) == [row.line for row in many]
    for fold in folds:
        assert sorted(row.line for row in (*fold.train, *fold.test)) == [r.line for r in many]
        seen = {configuration_of(row) for row in fold.train}
        assert not seen & {configuration_of(row) for row in fold.test}


def test_folds_are_even_in_each_mode_and_the_same_each_time(many: tuple[Row, ...]) -> None:
    apart = [replace(row, mode="disagg") if row.tp_size == 4 else row for row in many]
    folds = configuration_folds(apart)
    for mode in ("agg", "disagg"):
        sizes = [sum(row.mode == mode for row in fold.test) for fold in folds]
        assert max(sizes) - min(sizes) <= 4
    assert configuration_folds(apart) == folds
    assert configuration_folds(apart, seed=1) != folds


def test_a_system_is_left_out_whole(many: tuple[Row, ...]) -> None:
    folds = system_folds(many)
    assert [fold.name for fold in folds] == ["b200_sxm", "h200_sxm"]
    for fold in folds:
        assert {row.system for row in fold.test} == {fold.name}
        assert fold.name not in {row.system for row in fold.train}


def test_too_few_rows_to_part_are_refused(many: tuple[Row, ...]) -> None:
    with pytest.raises(ValueError, match="1 configurations cannot make 5 folds"):
        configuration_folds(many[:4])
    with pytest.raises(ValueError, match="all rows are of h200_sxm"):
        system_folds(many[:4])
