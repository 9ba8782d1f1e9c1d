"""A placement's true time, by mean rows and under rows that are dealt out one by one."""

from dataclasses import replace

import numpy as np
import pytest
from moe_placement.bench.instances import Part, real_devices, scalar_devices, skewed_rows
from moe_placement.bench.score import Deal, Scorer
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.solver.predicted import predicted_seconds
from moe_placement.solver.problem import ExpertPlacement

# Expert 0 on both ranks, 1 on the first, 2 on the second, beside an empty slot each.
PLACEMENT = ExpertPlacement(
    expert_LS=np.array([[0, 1, -1, 2, -1, 0]]),
    rank_LS=np.array([[0, 0, 0, 1, 1, 1]]),
    weight_LS=np.array([[0.25, 1.0, 0.0, 1.0, 0.0, 0.75]]),
)
CURVES = (
    ExpertCurve((Plane(1.0, 0.1, 0.0), Plane(2.0, 0.0, 0.5))),
    ExpertCurve((Plane(0.5, 0.2, 0.01),)),
)
PROBLEM = replace(
    scalar_devices(np.array([[400.0, 0.0, 6.0]]), np.full(2, 3)),
    flops_per_row=2.0,
    expert_bytes_N=np.array([10.0, 20.0]),
    curves=CURVES,
    curve_N=np.array([0, 1]),
    row_seconds_N=np.array([0.0, 0.125]),
)


def test_a_step_is_as_slow_as_its_slowest_rank_by_the_curves() -> None:
    rows_LE = np.array([[0, 4, 6]])
    score = Scorer(PLACEMENT, PROBLEM, seed=0).score(rows_LE)
    # Expert 0 has no row: neither rank reads it.
    ranks = (CURVES[0].seconds(10.0, 8.0), CURVES[1].seconds(20.0, 12.0) + 6 * 0.125)
    assert score.seconds == pytest.approx(max(ranks))
    assert score.imbalance == pytest.approx(6 / 5)


def test_rows_are_dealt_by_weight_and_none_is_lost() -> None:
    deal = Deal.of(PLACEMENT, num_experts=3, num_ranks=2)
    rng = np.random.default_rng(0)
    dealt = np.array([deal.rows_of_slots(rng, np.array([[400, 3, 6]])) for _ in range(300)])
    np.testing.assert_array_equal(dealt[:, [1, 2, 3, 4]], [[3, 0, 6, 0]] * 300)
    assert (dealt[:, 0] + dealt[:, 5] == 400).all()
    assert dealt[:, 0].mean() == pytest.approx(100, abs=2)
    assert dealt[:, 0].std() == pytest.approx(np.sqrt(400 * 0.25 * 0.75), rel=0.15)


def test_layers_add_up_and_an_expert_may_be_twice_on_a_rank() -> None:
    twice = ExpertPlacement(
        expert_LS=np.array([[0, 0, 1], [0, 1, 1]]),
        rank_LS=np.array([[0, 0, 1]] * 2),
        weight_LS=np.array([[0.5, 0.5, 1.0], [1.0, 0.5, 0.5]]),
    )
    problem = scalar_devices(np.ones((2, 2)), np.full(2, 2), speed_N=np.array([1.0, 2.0]))
    score = Scorer(twice, problem, seed=0).score(np.array([[10, 8], [0, 0]]))
    assert score.seconds == pytest.approx(10.0)


def test_steps_without_rows_are_balanced() -> None:
    problem = scalar_devices(np.ones((1, 3)), np.full(2, 3))
    score = Scorer(PLACEMENT, problem, seed=0).score(np.array([[0, 0, 0]]))
    assert (score.seconds, score.imbalance) == (0.0, 1.0)


def test_prediction_by_mean_rows_is_the_curve_at_what_is_read() -> None:
    (seconds,) = predicted_seconds(PLACEMENT, PROBLEM)
    first = CURVES[0].seconds(10.0 * (1 - np.exp(-100)), 200.0)
    second = CURVES[1].seconds(20.0 * (2 - np.exp(-300) - np.exp(-6)), 612.0) + 306 * 0.125
    assert seconds == pytest.approx(max(first, second))


def test_prediction_is_near_the_mean_of_many_steps() -> None:
    """Where one rank is the slowest by far, so that the maximum has no luck in it."""
    rows_LE = skewed_rows(2, 16, 400.0, seed=0)
    problem = real_devices(rows_LE, (Part("h20", "fp8", 1, 16), Part("xeon_6980p", "int8", 1, 16)))
    rank_S = np.repeat([0, 1], 8)
    placement = ExpertPlacement(
        expert_LS=np.tile(np.arange(16), (2, 1)),
        rank_LS=np.tile(rank_S, (2, 1)),
        weight_LS=np.ones((2, 16)),
    )
    rng, scorer = np.random.default_rng(1), Scorer(placement, problem, seed=0)
    steps = [scorer.score(rng.poisson(rows_LE)).seconds for _ in range(200)]
    assert np.mean(steps) == pytest.approx(predicted_seconds(placement, problem).sum(), rel=0.01)
