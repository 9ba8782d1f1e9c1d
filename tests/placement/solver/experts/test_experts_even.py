"""Replicas that share evenly, for engines without weights: all slots used, no worse than EPLB."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

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
from moe_placement.load.formats.eplb_arrays import read_eplb_arrays, write_eplb_arrays
from moe_placement.load.formats.tensorrt_llm import read_load_balancer, write_load_balancer
from moe_placement.load.formats.vllm_ascend import read_expert_map, write_expert_map
from moe_placement.solver.place import place_experts
from moe_placement.solver.predicted import predicted_seconds
from moe_placement.solver.problem import (
    ExpertPlacement,
    ExpertProblem,
    Floats,
    Ints,
    PlacementImpossibleError,
)


def like_ranks(rows_LE: Floats, num_ranks: int, slots: int) -> ExpertProblem:
    return replace(scalar_devices(rows_LE, np.full(num_ranks, slots)), even=True)


def check_even(placement: ExpertPlacement) -> None:
    for expert_S, weight_S in zip(placement.expert_LS, placement.weight_LS, strict=True):
        used_S = expert_S >= 0
        count_E = np.bincount(expert_S[used_S])
        np.testing.assert_allclose(weight_S[used_S], 1.0 / count_E[expert_S[used_S]])


def most_on_a_rank(placement: ExpertPlacement, num_ranks: int) -> Ints:
    """Most replicas of one expert on one rank, by layer."""
    key_LS = placement.expert_LS * num_ranks + placement.rank_LS
    return np.array([np.bincount(key_S).max() for key_S in key_LS])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 100_000))
def test_any_answer_is_valid_even_and_truly_priced(seed: int) -> None:
    problem = replace(random_problem(seed), spread=False, even=True)
    try:
        first = place_experts(problem)
        moved = with_old(problem, first.placement, seed)
        second = place_experts(moved)
    except PlacementImpossibleError as error:
        assert "short" in str(error)
        return
    for asked, result in ((problem, first), (moved, second)):
        check_valid(asked, result.placement)
        check_even(result.placement)
        seconds_L = true_seconds(asked, result.placement)
        np.testing.assert_allclose(result.layer_seconds_L, seconds_L, rtol=1e-6, atol=1e-15)
        assert np.all(seconds_L >= result.layer_bound_L * (1 - 1e-9))
    assert moved.move_bytes is None or second.moved_bytes <= moved.move_bytes
    assert loaded_bytes(moved, first.placement, second.placement) <= second.moved_bytes + 1e-6


def test_the_two_layer_example() -> None:
    problem = like_ranks(TWO_LAYERS_LE, 8, 2)
    grouped = replace(problem, group_E=np.arange(12) // 3, node_N=np.arange(8) // 4)
    mean_L = TWO_LAYERS_LE.sum(1) / 8
    assert np.all(place_experts(problem).layer_seconds_L <= np.array([1.077, 1.191]) * mean_L)
    assert np.all(place_experts(grouped).layer_seconds_L <= np.array([1.2082, 1.2423]) * mean_L)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 6, 7])
def test_like_ranks_are_never_worse_balanced_than_by_eplb(seed: int) -> None:
    """Save where EPLB has two replicas of an expert on one rank, which no plan may have."""
    rng = np.random.default_rng(seed)
    num_ranks, slots = int(rng.integers(4, 12)), int(rng.integers(2, 6))
    num_experts = int(rng.integers(max(slots, num_ranks * slots // 2), num_ranks * slots + 1))
    weight_LE = rng.lognormal(0.0, rng.uniform(0.1, 2.0, (6, 1)), (6, num_experts))
    rows_LE = rng.multinomial(20_000, weight_LE / weight_LE.sum(1, keepdims=True)) * 1.0
    problem = like_ranks(rows_LE, num_ranks, slots)
    eplb = place_with_eplb(rows_LE, num_slots=num_ranks * slots, num_ranks=num_ranks)
    is_fair_L = most_on_a_rank(eplb, num_ranks) == 1
    assert is_fair_L.any()
    result = place_experts(problem)
    assert np.all(result.placement.expert_LS >= 0)
    eplb_L = predicted_seconds(eplb, problem)
    assert np.all(result.layer_seconds_L[is_fair_L] <= eplb_L[is_fair_L] * (1 + 1e-6))


def test_slower_ranks_get_colder_experts() -> None:
    speed_N = np.repeat([1.0, 0.55], 8)
    base = scalar_devices(skewed_rows(3, 128, 32e3, seed=1), np.full(16, 10), speed_N=speed_N)
    problem = replace(base, even=True)
    result = place_experts(problem)
    eplb = place_with_eplb(problem.rows_LE, num_slots=160, num_ranks=16)
    assert result.gap < 0.01
    assert np.all(result.layer_seconds_L < 0.8 * predicted_seconds(eplb, problem))


def test_unlike_devices_are_faster_than_by_eplb() -> None:
    parts = (Part("h20", "fp8", 8, 12), Part("atlas_a2_376t", "int8", 8, 12))
    rows_LE = skewed_rows(2, 128, 8.0 * 1024, seed=2)
    problem = replace(real_devices(rows_LE, parts, model="qwen3_30b_a3b"), even=True)
    eplb = place_with_eplb(rows_LE, num_slots=192, num_ranks=16)
    assert place_experts(problem).step_seconds < predicted_seconds(eplb, problem).sum()


@pytest.mark.parametrize(
    ("file", "write", "read"),
    [
        ("map.json", write_expert_map, partial(read_expert_map, layers=[3, 4])),
        ("balancer.yaml", write_load_balancer, partial(read_load_balancer, num_ranks=8)),
        (
            "arrays.npz",
            write_eplb_arrays,
            partial(read_eplb_arrays, num_ranks=8, layers=[3, 4]),
        ),
    ],
)
def test_exports_lose_nothing(tmp_path: Path, file: str, write: Any, read: Any) -> None:
    """What is written comes back with even shares, and costs what was promised."""
    result = place_experts(like_ranks(skewed_rows(2, 32, 1e4, seed=3), 8, 6))
    plans = result.placement.layer_plans([3, 4], 8)
    assert write(tmp_path / file, plans) == ""
    for layer, plan in read(tmp_path / file).items():
        assert plan.slots == plans[layer].slots
        for shares, promised in zip(plan.weights, plans[layer].weights, strict=True):
            np.testing.assert_allclose(shares, promised, rtol=1e-12)


def test_fewer_slots_are_taken_off_all_ranks_alike() -> None:
    problem = replace(like_ranks(skewed_rows(2, 32, 1e4, seed=3), 8, 12), num_slots=48)
    counts = [np.bincount(rank_S) for rank_S in place_experts(problem).placement.rank_LS]
    assert np.all(np.array(counts) == 6)


def test_each_byte_more_to_move_is_a_step_no_slower() -> None:
    old = place_experts(like_ranks(skewed_rows(2, 32, 1e4, seed=0), 8, 6)).placement
    problem = replace(like_ranks(skewed_rows(2, 32, 1e4, seed=1), 8, 6), old=old)
    results = [
        place_experts(replace(problem, move_bytes=budget)) for budget in (0.0, 4.0, 12.0, None)
    ]
    seconds = [result.step_seconds for result in results]
    assert seconds == sorted(seconds, reverse=True)
    assert results[0].moved_bytes == 0.0
    assert seconds[2] < 0.9 * seconds[0]


def test_spread_is_refused() -> None:
    problem = replace(like_ranks(skewed_rows(1, 8, 1e3, seed=0), 4, 4), spread=True)
    with pytest.raises(PlacementImpossibleError, match="spread does not go with even"):
        place_experts(problem)
