"""Experts move when the gain pays for the loading before the load has changed again."""

from dataclasses import replace

import numpy as np
import pytest
from moe_placement.bench.instances import scalar_devices, skewed_rows
from moe_placement.solver.moving.moves import moved_bytes, replicas
from moe_placement.solver.moving.rebalance import MovePolicy, Rebalance, rebalance
from moe_placement.solver.place import place_experts
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem

POLICY = MovePolicy(bytes_per_second=1.0, step_bytes=4.0, horizon_steps=500)


@pytest.fixture(scope="module")
def problem() -> ExpertProblem:
    """Two layers of 32 experts on 8 equal ranks of 6 slots, placed for another load."""
    fresh = scalar_devices(skewed_rows(2, 32, 8000.0, seed=0), np.full(8, 6))
    old = place_experts(fresh).placement
    return replace(fresh, rows_LE=skewed_rows(2, 32, 8000.0, seed=1), old=old)


def held(placement: ExpertPlacement) -> set[tuple[int, ...]]:
    return {tuple(key) for key in replicas(placement).tolist()}


def moved_by(old: ExpertPlacement, decision: Rebalance) -> set[tuple[int, ...]]:
    keys = held(old)
    for batch in decision.batches:
        for move in batch.moves:
            key = (move.layer, move.expert, move.rank)
            keys.add(key) if move.kind == "add" else keys.remove(key)
    return keys


def test_a_load_that_has_changed_is_followed(problem: ExpertProblem) -> None:
    assert problem.old is not None
    decision = rebalance(problem, POLICY)
    assert moved_by(problem.old, decision) == held(decision.placement)
    assert decision.bytes_moved == moved_bytes(problem.old, decision.placement, np.ones(8)) > 0
    assert decision.bytes_moved == sum(batch.num_bytes for batch in decision.batches)
    assert all(batch.num_bytes <= 4.0 * batch.num_steps for batch in decision.batches)
    assert decision.gain_seconds > 0
    assert decision.break_even_steps == decision.cost_seconds / decision.gain_seconds < 500
    assert "the experts move" in decision.reason


def test_loading_that_takes_too_long_does_not_pay(problem: ExpertProblem) -> None:
    assert problem.old is not None
    follow = rebalance(problem, POLICY)
    slow = replace(POLICY, bytes_per_second=follow.break_even_steps / 500 / 20)
    decision = rebalance(problem, slow)
    assert (decision.batches, decision.bytes_moved) == ((), 0.0)
    assert held(decision.placement) <= held(problem.old)
    assert decision.break_even_steps > 500
    assert "the experts stay" in decision.reason
    barely = replace(slow, horizon_steps=int(decision.break_even_steps) + 1)
    assert rebalance(problem, barely).batches


def test_where_not_all_moves_pay_some_do(problem: ExpertProblem) -> None:
    everything = rebalance(problem, POLICY)
    dear = replace(POLICY, bytes_per_second=everything.break_even_steps / 500 / 1.2)
    decision = rebalance(problem, dear)
    assert 0 < decision.bytes_moved <= everything.bytes_moved / 4
    assert 0 < decision.gain_seconds < everything.gain_seconds
    assert decision.break_even_steps < 500


def test_what_suits_the_load_stays(problem: ExpertProblem) -> None:
    settled = replace(problem, old=place_experts(replace(problem, old=None)).placement)
    decision = rebalance(settled, POLICY)
    assert decision.batches == ()
    assert decision.gain_seconds == pytest.approx(0.0, abs=1e-6)


def test_the_byte_budget_of_the_problem_holds(problem: ExpertProblem) -> None:
    everything = rebalance(problem, POLICY)
    tight = rebalance(replace(problem, move_bytes=3.0), POLICY)
    assert tight.bytes_moved <= 3.0 < everything.bytes_moved
