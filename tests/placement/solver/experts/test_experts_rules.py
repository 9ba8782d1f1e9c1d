"""Failure domains, groups, old placements, and what is said when slots are short."""

from dataclasses import replace

import numpy as np
import pytest
from expert_problems import check_valid, loaded_bytes, true_seconds
from moe_placement.bench.instances import scalar_devices, skewed_rows
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.solver.place import place_experts
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, PlacementImpossibleError


def problem_of(seed: int, slots: int = 6) -> ExpertProblem:
    """3 layers of 32 experts on 8 like ranks in 4 nodes."""
    problem = scalar_devices(skewed_rows(3, 32, 1e4, seed=seed), np.full(8, slots))
    return replace(problem, node_N=np.arange(8) // 2, domain_N=np.arange(8) // 2)


@pytest.fixture(scope="module")
def old() -> ExpertPlacement:
    return place_experts(problem_of(0)).placement


def test_spread_experts_are_in_two_domains_and_still_balanced() -> None:
    problem = replace(problem_of(0, slots=12), spread=True)
    result = place_experts(problem)
    check_valid(problem, result.placement)
    assert result.gap < 0.02


def test_spread_where_reading_is_dear_leaves_one_replica_standing_by() -> None:
    """Replicas that share would double the reads; a stand-by is hardly ever read."""
    problem = replace(
        problem_of(0, slots=12), spread=True, curves=(ExpertCurve((Plane(0, 1.0, 1e-6),)),)
    )
    result = place_experts(problem)
    check_valid(problem, result.placement)
    assert result.step_seconds < 1.2 * result.lower_bound


def test_spread_says_how_many_slots_are_short() -> None:
    with pytest.raises(PlacementImpossibleError, match=r"64 in every layer, 48 serve, 16 short"):
        place_experts(replace(problem_of(0), spread=True))


def test_spread_in_one_domain_is_refused() -> None:
    problem = replace(problem_of(0, slots=32), spread=True, domain_N=np.zeros(8, np.int64))
    with pytest.raises(PlacementImpossibleError, match="1 short"):
        place_experts(problem)


def test_spread_is_found_in_the_last_slots_there_are() -> None:
    """Domains of 8, 4 and 4 slots for 8 experts: every slot is wanted."""
    base = scalar_devices(skewed_rows(1, 8, 1e3, seed=0), np.array([4, 4, 4, 4]))
    problem = replace(base, spread=True, domain_N=np.array([0, 0, 1, 2]))
    check_valid(problem, place_experts(problem).placement)


def test_groups_stay_on_a_node() -> None:
    problem = replace(problem_of(0, slots=8), group_E=np.arange(32) // 4)
    check_valid(problem, place_experts(problem).placement)


def test_a_group_too_large_for_any_node_is_refused() -> None:
    problem = replace(problem_of(0), group_E=np.zeros(32, np.int64))
    with pytest.raises(PlacementImpossibleError, match=r"12 slots in each layer: 20 short"):
        place_experts(problem)


@pytest.mark.parametrize(
    ("slots", "num_slots", "message"), [(3, 0, "8 short"), (6, 30, "2 short"), (6, 49, "1 short")]
)
def test_short_slots_are_counted(slots: int, num_slots: int, message: str) -> None:
    with pytest.raises(PlacementImpossibleError, match=message):
        place_experts(replace(problem_of(0, slots=slots), num_slots=num_slots))


@pytest.mark.parametrize("rows", [-1.0, np.nan, np.inf])
def test_loads_that_are_none_are_refused(rows: float) -> None:
    problem = problem_of(0)
    rows_LE = problem.rows_LE.copy()
    rows_LE[1, 5] = rows
    with pytest.raises(ValueError, match="layer 1, expert 5"):
        place_experts(replace(problem, rows_LE=rows_LE))


def test_without_bytes_to_move_only_weights_change(old: ExpertPlacement) -> None:
    problem = replace(problem_of(1), old=old, move_bytes=0.0)
    result = place_experts(problem)
    assert loaded_bytes(problem, old, result.placement) == 0.0
    assert result.moved_bytes == 0.0
    assert np.all(result.layer_seconds_L <= true_seconds(problem, old) * (1 + 1e-9))


def test_each_byte_more_to_move_is_a_step_no_slower(old: ExpertPlacement) -> None:
    budgets = (0.0, 2.0, 6.0, 20.0, 60.0, None)
    problem = replace(problem_of(1), old=old)
    results = [place_experts(replace(problem, move_bytes=budget)) for budget in budgets]
    seconds = [result.step_seconds for result in results]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[2] < 0.97 * seconds[0]
    assert all(
        budget is None or result.moved_bytes <= budget
        for budget, result in zip(budgets, results, strict=True)
    )
    assert results[0].binding == "bytes to move"


def test_an_old_placement_that_still_serves_is_kept(old: ExpertPlacement) -> None:
    result = place_experts(replace(problem_of(0), old=old))
    assert result.moved_bytes == 0.0
    assert result.gap < 2e-3


def test_experts_of_a_lost_rank_go_elsewhere(old: ExpertPlacement) -> None:
    problem = replace(problem_of(0), old=old, slots_N=np.array([6] * 7 + [0]))
    result = place_experts(problem)
    check_valid(problem, result.placement)
    with pytest.raises(PlacementImpossibleError, match=r"move_bytes is 1: .* short"):
        place_experts(replace(problem, move_bytes=1.0))


def test_like_ranks_keep_their_experts_under_new_names(old: ExpertPlacement) -> None:
    """The same placement with the ranks' names turned round needs nothing to be loaded."""
    turned = replace(old, rank_LS=7 - old.rank_LS)
    result = place_experts(replace(problem_of(0), old=turned))
    assert result.moved_bytes == 0.0
