from collections.abc import Callable
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from moe_placement.accuracy.fit import fit
from moe_placement.accuracy.predict import predict_row, predict_stacks, stack_rows
from moe_placement.accuracy.rows import Row, read_rows
from moe_placement.cost.coefficients import Coefficients

TRUE = Coefficients(
    weight_read=0.55,
    expert_read=0.5,
    kernel_vllm=4e-6,
    sequence_vllm=4e-5,
    poll_vllm=9.0,
    dense_compute=0.4,
)


def _measured_by(rows: tuple[Row, ...], truth: Coefficients) -> tuple[Row, ...]:
    return tuple(
        replace(row, measured_ttft=ttft, measured_tpot=tpot)
        for row, (ttft, tpot) in ((row, predict_row(row, truth)) for row in rows)
    )


def _errors(rows: tuple[Row, ...], coefficients: Coefficients) -> np.ndarray:
    predicted = np.array(predict_stacks(stack_rows(rows), coefficients))
    measured = np.array([(row.measured_ttft, row.measured_tpot) for row in rows]).T
    return np.abs(predicted / measured - 1)


@pytest.fixture
def rows(
    write: Callable[..., Path], many: tuple[Row, ...], disaggregated: dict[str, str]
) -> tuple[Row, ...]:
    apart = read_rows(write(disaggregated))
    return _measured_by((*many[::3], *apart), TRUE)


@cache
def _fitted(rows: tuple[Row, ...]) -> Coefficients:
    return fit(rows, max_steps=6)


@pytest.fixture
def fitted(rows: tuple[Row, ...]) -> Coefficients:
    return _fitted(rows)


def test_a_fit_recovers_what_known_coefficients_give(
    rows: tuple[Row, ...], fitted: Coefficients
) -> None:
    before, after = _errors(rows, Coefficients()), _errors(rows, fitted)
    assert np.median(before) > 0.1
    assert np.median(after) < 0.04
    assert after.max() < 0.2


def test_coefficients_stay_within_their_bounds(fitted: Coefficients) -> None:
    values = asdict(fitted)
    for entry in fields(Coefficients):
        assert entry.metadata["low"] <= values[entry.name] <= entry.metadata["high"]


def test_what_the_rows_say_nothing_of_stays_near_its_prior(fitted: Coefficients) -> None:
    for name in ("kernel_sglang", "poll_trtllm", "narrow_compute"):
        prior = getattr(Coefficients(), name)
        assert getattr(fitted, name) == pytest.approx(prior, rel=0.05)


@pytest.mark.slow
def test_a_few_wild_rows_do_not_bend_the_fit(rows: tuple[Row, ...], fitted: Coefficients) -> None:
    wild = tuple(replace(row, measured_tpot=row.measured_tpot * 5) for row in rows[:2])
    bent = fit((*wild, *rows[2:]), max_steps=6)
    assert np.median(_errors(rows[2:], bent)) < 0.06


def test_the_same_seed_gives_the_same_fit(rows: tuple[Row, ...]) -> None:
    first = fit(rows, seed=3, max_steps=1)
    assert fit(rows, seed=3, max_steps=1) == first
    assert fit(rows, seed=4, max_steps=1) != first
