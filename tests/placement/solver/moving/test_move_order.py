"""Experts move in batches that leave every state between them sound."""

from typing import Any

import numpy as np
import pytest
from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.plan import LayerPlan
from moe_placement.plan_diff import Move
from moe_placement.solver.moving.move_order import MoveBatch, order_moves
from moe_placement.solver.moving.moves import added, moved_bytes, replicas
from moe_placement.solver.moving.transition import placement_after
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem


def random_placement(
    rng: np.random.Generator, num_layers: int, num_experts: int, slots_N: list[int]
) -> ExpertPlacement:
    """All experts somewhere, the other slots full of random replicas with random weights."""
    rank_S = np.repeat(np.arange(len(slots_N)), slots_N)
    lines = []
    while len(lines) < num_layers:
        expert_S = np.full(len(rank_S), -1)
        for place, expert in zip(rng.permutation(len(rank_S)), range(num_experts), strict=False):
            expert_S[place] = expert
        for place in np.flatnonzero(expert_S < 0):
            there = expert_S[rank_S == rank_S[place]]
            expert_S[place] = rng.choice(np.setdiff1d(np.arange(num_experts), there))
        lines.append(expert_S)
    expert_LS = np.array(lines)
    weight_LS = rng.uniform(0.1, 1.0, expert_LS.shape)
    for expert_S, weight_S in zip(expert_LS, weight_LS, strict=True):
        weight_S /= np.bincount(expert_S, weights=weight_S)[expert_S]
    return ExpertPlacement(
        expert_LS=expert_LS, rank_LS=np.tile(rank_S, (num_layers, 1)), weight_LS=weight_LS
    )


def problem_with(old: ExpertPlacement, num_experts: int, **changes: Any) -> ExpertProblem:
    num_ranks = int(old.rank_LS.max()) + 1
    fields: dict[str, Any] = {
        "rows_LE": np.ones((len(old.expert_LS), num_experts)),
        "flops_per_row": 1.0,
        "expert_bytes_N": np.ones(num_ranks),
        "slots_N": np.bincount(old.rank_LS[0], minlength=num_ranks),
        "curves": (ExpertCurve((Plane(0.0, 0.0, 1.0),)),),
        "curve_N": np.zeros(num_ranks, np.int64),
        "row_seconds_N": np.zeros(num_ranks),
        "node_N": np.zeros(num_ranks, np.int64),
        "domain_N": np.arange(num_ranks),
        "old": old,
    }
    return ExpertProblem(**(fields | changes))


def check_states(
    problem: ExpertProblem, new: ExpertPlacement, batches: tuple[MoveBatch, ...]
) -> None:
    """After each batch: weights can serve, ranks are within their slots, nothing is lost."""
    assert problem.old is not None
    num_layers, num_experts = problem.rows_LE.shape
    held = {tuple(key) for key in replicas(problem.old).tolist()}
    done: list[Move] = []
    for batch in batches:
        for move in batch.moves:
            key = (move.layer, move.expert, move.rank)
            held.add(key) if move.kind == "add" else held.remove(key)
        done += batch.moves
        count_LN = np.zeros((num_layers, len(problem.slots_N)), int)
        for layer, _, rank in held:
            count_LN[layer, rank] += 1
        assert (count_LN <= problem.slots_N).all()
        assert len({key[:2] for key in held}) == num_layers * num_experts
        between = placement_after(problem.old, new, done)
        assert {tuple(key) for key in replicas(between).tolist()} <= held
        plans = between.layer_plans(range(num_layers), len(problem.slots_N))
        for layer, plan in plans.items():
            plan.validate(layer, {0: range(len(problem.slots_N))}, num_experts)
    assert held == {tuple(key) for key in replicas(new).tolist()}
    final = placement_after(problem.old, new, done)
    assert _by_key(final) == pytest.approx(_by_key(new))


def _by_key(placement: ExpertPlacement) -> dict[tuple[int, ...], float]:
    plans: dict[int, LayerPlan] = placement.layer_plans(range(len(placement.expert_LS)), 99)
    return {
        (layer, rank, expert): weight
        for layer, plan in plans.items()
        for rank, experts in enumerate(plan.slots)
        for expert, weight in zip(experts, plan.weights[rank], strict=True)
    }


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("slots_N", [[3, 3, 3, 3], [2, 5, 1, 4], [2, 2, 2, 2]])
def test_every_state_between_is_sound(slots_N: list[int], seed: int) -> None:
    rng, num_experts = np.random.default_rng(seed), 8
    old, new = (random_placement(rng, 3, num_experts, slots_N) for _ in range(2))
    problem = problem_with(old, num_experts)
    batches = order_moves(problem, new, gain_L=np.ones(3), step_bytes=4.0)
    check_states(problem, new, batches)
    assert sum(batch.num_bytes for batch in batches) == moved_bytes(old, new, np.ones(4))
    for batch in batches:
        moves = [move for move in batch.moves if move.kind == "add"]
        assert batch.num_bytes == len(moves)
        assert batch.num_steps == 1 or len(moves) > 4


def test_without_spare_slots_a_ring_moves_at_once() -> None:
    """Three ranks of one slot each hand on their only expert: none can go first."""
    old, new = (
        ExpertPlacement(
            expert_LS=np.array([experts]),
            rank_LS=np.array([[0, 1, 2]]),
            weight_LS=np.ones((1, 3)),
        )
        for experts in ([0, 1, 2], [2, 0, 1])
    )
    problem = problem_with(old, 3)
    (batch,) = order_moves(problem, new, gain_L=np.ones(1), step_bytes=1.0)
    assert (len(batch.moves), batch.num_bytes, batch.num_steps) == (6, 3.0, 3)
    check_states(problem, new, (batch,))


def test_layers_come_by_their_gain_per_byte() -> None:
    rng = np.random.default_rng(0)
    old, new = (random_placement(rng, 3, 8, [3, 3, 3, 3]) for _ in range(2))
    problem = problem_with(old, 8)
    bytes_L = np.bincount(added(old, new)[:, 0], minlength=3)
    gain_L = bytes_L * np.array([1.0, 3.0, 2.0])
    batches = order_moves(problem, new, gain_L=gain_L, step_bytes=2.0)
    order = [move.layer for batch in batches for move in batch.moves]
    assert list(dict.fromkeys(order)) == [1, 2, 0]


def test_what_does_not_change_does_not_move() -> None:
    old = random_placement(np.random.default_rng(0), 2, 8, [3, 3, 3, 3])
    assert order_moves(problem_with(old, 8), old, gain_L=np.zeros(2), step_bytes=1.0) == ()
    assert moved_bytes(old, old, np.ones(4)) == 0
