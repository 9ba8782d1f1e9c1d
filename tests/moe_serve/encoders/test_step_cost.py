"""How an encoder learns what its steps take."""

from math import inf

import pytest

from moe_serve.encoders.cost import StepCost


def taught(fixed: float, *steps: tuple[float, float]) -> StepCost:
    cost = StepCost(fixed)
    for work, seconds in steps:
        cost.learn(work, seconds)
    return cost


def test_nothing_is_known_before_the_first_step() -> None:
    assert StepCost(0.1).seconds(1.0) == inf


@pytest.mark.parametrize("works", [(10.0, 400.0, 90.0, 1000.0), (400.0,) * 300])
def test_the_fixed_part_is_told_from_the_rest(works: tuple[float, ...]) -> None:
    cost = taught(0.003, *((work, 0.003 + 1e-5 * work) for work in works))
    assert cost.seconds(0.0) == pytest.approx(0.003)
    assert cost.seconds(5000.0) == pytest.approx(0.053)


def test_older_steps_are_forgotten() -> None:
    steps = [(work, seconds * work) for seconds in (1.0, 3.0) for work in (10.0, 20.0) * 60]
    assert taught(0.0, *steps).seconds(30.0) == pytest.approx(90.0, rel=0.01)


def test_a_fixed_part_that_was_measured_too_long_is_mended() -> None:
    cost = taught(5.0, *((work, 0.1 + work) for work in (1.0, 2.0, 4.0)))
    assert cost.seconds(0.0) == pytest.approx(1.1)
    assert 2.5 < cost.seconds(3.0) < 4.0


def test_more_work_is_never_expected_to_take_less() -> None:
    cost = taught(1.0, (10.0, 1.0), (20.0, 1.0))
    assert 1.0 < cost.seconds(10.0) < cost.seconds(20.0) < 1.3
