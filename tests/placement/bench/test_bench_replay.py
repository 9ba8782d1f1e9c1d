"""Placers are met by load that comes after their plans, and pay for what they move."""

from dataclasses import replace

import numpy as np
import pytest
from moe_placement.bench.eplb import place_with_eplb
from moe_placement.bench.instances import scalar_devices
from moe_placement.bench.replay import Outcome, Traffic, play
from moe_placement.load.skew import Skew
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem

NUM_LAYERS = 12
TRAFFIC = Traffic(
    skew=Skew(num_layers=NUM_LAYERS, num_experts=256), num_tokens=4608, num_plans=2, stride=20
)
PROBLEM = scalar_devices(np.ones((NUM_LAYERS, 256)), np.full(36, 8))


def eplb(problem: ExpertProblem) -> ExpertPlacement:
    return place_with_eplb(problem.rows_LE, num_slots=288, num_ranks=36)


def test_eplb_lands_where_it_was_measured() -> None:
    """TensorRT-LLM: max over mean 1.115 with 288 slots of 36 ranks and 1,024 rows a rank."""
    outcome = play(eplb, PROBLEM, TRAFFIC, seed=0)
    assert 1.09 < outcome.imbalance < 1.125
    assert outcome.step_seconds == pytest.approx(outcome.imbalance * 1024 * NUM_LAYERS, rel=1e-3)


def test_without_drift_only_sampling_is_left() -> None:
    still = replace(TRAFFIC, skew=replace(TRAFFIC.skew, drift=0.0))
    assert 1.055 < play(eplb, PROBLEM, still, seed=0).imbalance < 1.075


def test_a_change_of_the_data_shows() -> None:
    switching = replace(TRAFFIC, skew=replace(TRAFFIC.skew, switch_steps=1000), num_plans=4)
    assert play(eplb, PROBLEM, switching, seed=0).imbalance > 1.2


def test_bytes_are_those_of_the_replicas_that_appear() -> None:
    seen: list[ExpertPlacement] = []

    def two_plans(problem: ExpertProblem) -> ExpertPlacement:
        """The same at first, then with two experts of each layer that change places."""
        expert_LS = np.tile(np.arange(256), (NUM_LAYERS, 1))
        if seen:
            assert problem.old is seen[0]
            expert_LS[:, [0, 255]] = expert_LS[:, [255, 0]]
        seen.append(
            ExpertPlacement(
                expert_LS=expert_LS,
                rank_LS=np.tile(np.arange(256) // 8, (NUM_LAYERS, 1)),
                weight_LS=np.ones((NUM_LAYERS, 256)),
            )
        )
        return seen[-1]

    problem = replace(PROBLEM, expert_bytes_N=np.arange(36.0))
    outcome = play(two_plans, problem, TRAFFIC, seed=0)
    assert outcome.bytes_per_replan == NUM_LAYERS * (0 + 31)


def test_same_seed_same_traffic() -> None:
    first, again, other = (play(eplb, PROBLEM, TRAFFIC, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert isinstance(other, Outcome)
    assert first != other


def test_the_first_plan_is_free_to_load_what_it_likes() -> None:
    def always(problem: ExpertProblem) -> ExpertPlacement:
        return place_with_eplb(np.ones((NUM_LAYERS, 256)), num_slots=288, num_ranks=36)

    ranks = np.tile(np.arange(256) // 8, (NUM_LAYERS, 1))
    old = ExpertPlacement(
        expert_LS=np.tile(np.arange(256)[::-1], (NUM_LAYERS, 1)),
        rank_LS=ranks,
        weight_LS=np.ones((NUM_LAYERS, 256)),
    )
    assert play(always, replace(PROBLEM, old=old), TRAFFIC, seed=0).bytes_per_replan == 0.0
