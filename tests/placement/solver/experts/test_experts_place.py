"""Placements are valid whatever is asked, priced by the true cost, and close to their bound."""

from dataclasses import replace

import numpy as np
import pytest
from expert_problems import check_valid, loaded_bytes, random_problem, true_seconds, with_old
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_placement.bench.eplb import place_with_eplb
from moe_placement.bench.instances import (
    TWO_LAYERS_LE,
    Part,
    real_devices,
    scalar_devices,
    skewed_rows,
)
from moe_placement.bench.replay import Traffic, play
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.load.skew import Skew
from moe_placement.solver.place import PlacementResult, place_experts
from moe_placement.solver.predicted import predicted_seconds
from moe_placement.solver.problem import ExpertProblem, Floats, PlacementImpossibleError


def imbalance(problem: ExpertProblem, result: PlacementResult) -> Floats:
    """The fullest of equal ranks over the mean, by layer."""
    slowest_L = true_seconds(problem, result.placement)
    return slowest_L * len(problem.slots_N) / problem.rows_LE.sum(1)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(0, 100_000))
def test_any_answer_is_valid_truly_priced_and_above_its_bound(seed: int) -> None:
    problem = random_problem(seed)
    try:
        result = place_experts(problem)
    except PlacementImpossibleError as error:
        assert "short" in str(error)
        return
    check_valid(problem, result.placement)
    seconds_L = true_seconds(problem, result.placement)
    np.testing.assert_allclose(result.layer_seconds_L, seconds_L, rtol=1e-6, atol=1e-15)
    assert np.all(seconds_L >= result.layer_bound_L * (1 - 1e-9))
    assert result.step_seconds == pytest.approx(seconds_L.sum(), rel=1e-6)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(0, 100_000))
def test_any_way_from_an_old_placement_is_valid_and_within_its_budget(seed: int) -> None:
    try:
        first = random_problem(seed)
        problem = with_old(first, place_experts(first).placement, seed)
        result = place_experts(problem)
    except PlacementImpossibleError as error:
        assert "short" in str(error)
        return
    check_valid(problem, result.placement)
    assert problem.old is not None
    loaded = loaded_bytes(problem, problem.old, result.placement)
    assert loaded <= result.moved_bytes + 1e-6
    assert problem.move_bytes is None or result.moved_bytes <= problem.move_bytes


def test_the_same_seed_gives_the_same_placement() -> None:
    problem = scalar_devices(skewed_rows(2, 32, 1e4, seed=4), np.full(8, 5))
    first, second = (place_experts(problem, seed=3).placement for _ in range(2))
    np.testing.assert_array_equal(first.expert_LS, second.expert_LS)
    np.testing.assert_array_equal(first.weight_LS, second.weight_LS)


def test_the_two_layer_example_with_weighted_replicas() -> None:
    problem = scalar_devices(TWO_LAYERS_LE, np.full(8, 2))
    assert np.all(imbalance(problem, place_experts(problem)) <= [1.002, 1.011])


def test_the_two_layer_example_with_groups_kept_on_a_node() -> None:
    problem = scalar_devices(TWO_LAYERS_LE, np.full(8, 2))
    grouped = replace(problem, group_E=np.arange(12) // 3, node_N=np.arange(8) // 4)
    result = place_experts(grouped)
    check_valid(grouped, result.placement)
    assert np.all(imbalance(grouped, result) <= [1.139, 1.194])
    assert result.binding == "groups"


@pytest.mark.parametrize(
    ("num_experts", "num_ranks", "num_slots"),
    [(12, 8, 16), (16, 4, 16), (32, 8, 40), (64, 32, 64), (128, 16, 160)],
)
def test_equal_devices_are_never_worse_balanced_than_by_eplb(
    num_experts: int, num_ranks: int, num_slots: int
) -> None:
    rng = np.random.default_rng(num_slots)
    popularity_LE = rng.lognormal(0.0, rng.uniform(0.2, 2.0, (5, 1)), (5, num_experts))
    popularity_LE /= popularity_LE.sum(1, keepdims=True)
    rows_LE = rng.multinomial(20_000, popularity_LE).astype(np.float64)
    problem = scalar_devices(rows_LE, np.full(num_ranks, num_slots // num_ranks))
    eplb = place_with_eplb(rows_LE, num_slots=num_slots, num_ranks=num_ranks)
    seconds_L = true_seconds(problem, place_experts(problem).placement)
    assert np.all(seconds_L <= predicted_seconds(eplb, problem) * (1 + 1e-6))


@pytest.mark.parametrize("slow", [0.8, 0.55, 0.3])
def test_half_the_devices_slower_is_within_a_percent_of_the_bound(slow: float) -> None:
    speed_N = np.repeat([1.0, slow], 16)
    problem = scalar_devices(skewed_rows(4, 256, 32e3, seed=1), np.full(32, 10), speed_N=speed_N)
    result = place_experts(problem)
    assert np.all(result.layer_seconds_L <= result.layer_bound_L * 1.01)
    fluid = problem.rows_LE.sum(1) / speed_N.sum()
    np.testing.assert_allclose(result.layer_bound_L, fluid, rtol=2e-3)


@pytest.mark.parametrize("num_tokens", [64, 4096])
def test_unlike_devices_with_true_curves_are_within_five_percent(num_tokens: int) -> None:
    parts = (
        Part("h20", "fp8", 8, 24),
        Part("atlas_a2_376t", "int8", 8, 16),
        Part("xeon_6980p", "int8", 2, 32),
    )
    rows_LE = skewed_rows(2, 256, 8.0 * num_tokens, seed=2)
    problem = real_devices(rows_LE, parts, has_links=True)
    result = place_experts(problem)
    check_valid(problem, result.placement)
    assert 0 <= result.gap <= 0.05


def test_hot_experts_go_to_flops_and_cold_ones_to_bandwidth() -> None:
    """A rank bound by reading holds many cold experts, one bound by multiplying the hot ones."""
    rows_LE = np.array([[400.0] * 4 + [4.0] * 24])
    curves = (ExpertCurve((Plane(0, 1.0, 2.0),)), ExpertCurve((Plane(0, 8.0, 0.5),)))
    base = scalar_devices(rows_LE, np.full(4, 28))
    problem = replace(base, curves=curves, curve_N=np.array([0, 0, 1, 1]))
    result = place_experts(problem)
    expert_S, rank_S = result.placement.expert_LS[0], result.placement.rank_LS[0]
    cold_on_bandwidth = np.sum((expert_S >= 4) & (rank_S < 2))
    assert cold_on_bandwidth >= 20
    assert result.gap < 0.05


def test_replicas_that_only_add_bytes_are_left_out() -> None:
    """All time is reading, experts divide evenly, so slots beyond one each stay empty."""
    problem = replace(
        scalar_devices(np.full((2, 32), 50.0), np.full(8, 8)),
        curves=(ExpertCurve((Plane(0.0, 1.0, 0.0),)),),
    )
    result = place_experts(problem)
    assert np.all((result.placement.expert_LS >= 0).sum(1) == 32)
    assert result.gap < 1e-9
    assert result.binding == "expert bytes"


def test_fewer_slots_than_there_are_can_be_asked_for() -> None:
    problem = replace(scalar_devices(skewed_rows(2, 64, 1e4, seed=0), np.full(8, 16)), num_slots=70)
    result = place_experts(problem)
    check_valid(problem, result.placement)
    assert (result.placement.expert_LS >= 0).sum(1).max() <= 70


def test_an_expert_too_hot_for_its_replicas_makes_slots_bind() -> None:
    rows_LE = np.ones((1, 16))
    rows_LE[0, 3] = 100.0
    result = place_experts(scalar_devices(rows_LE, np.full(4, 4)))
    assert result.binding == "slots"
    assert result.lower_bound == pytest.approx(100.0)
    assert result.step_seconds == pytest.approx(103.0)


def test_a_link_that_costs_more_than_the_device_binds() -> None:
    problem = scalar_devices(skewed_rows(1, 32, 1e3, seed=0), np.full(4, 12))
    result = place_experts(replace(problem, row_seconds_N=np.full(4, 5.0)))
    assert result.binding == "link"


@pytest.mark.parametrize("drift", [0.3, pytest.param(0.1, marks=pytest.mark.slow)])
def test_drift_on_many_ranks_costs_no_more_than_with_eplb(drift: float) -> None:
    """Parts are small there, even where the load that was seen would do with large ones."""
    skew = Skew(num_layers=4, num_experts=256, drift=drift)
    traffic = Traffic(skew=skew, num_tokens=320 * 128, num_plans=1, stride=25)
    problem = scalar_devices(np.ones((4, 256)), np.full(320, 2))
    ours = play(lambda asked: place_experts(asked).placement, problem, traffic, seed=1)
    eplb = play(
        lambda asked: place_with_eplb(asked.rows_LE, num_slots=640, num_ranks=320),
        problem,
        traffic,
        seed=1,
    )
    assert ours.step_seconds <= eplb.step_seconds * 1.005


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_many_random_problems(seed: int) -> None:
    for offset in range(20):
        problem = random_problem(1000 * seed + offset)
        try:
            result = place_experts(problem)
        except PlacementImpossibleError:
            continue
        check_valid(problem, result.placement)
        seconds_L = true_seconds(problem, result.placement)
        assert np.all(seconds_L >= result.layer_bound_L * (1 - 1e-9))
