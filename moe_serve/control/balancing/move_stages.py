"""The sound placements on the way from one to another, each within the room for moving.

Shapes: N ranks of one EP group.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from moe_placement.plan_diff import Move
from moe_placement.solver.moving.rebalance import Rebalance
from moe_placement.solver.moving.transition import placement_after
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Ints

from moe_serve.control.planning.expert_problem import GroupRanks

# Layers, counted among MoE layers alone, as they are then.
Stage = dict[int, ExpertPlacement]


def move_stages(
    group: GroupRanks, problem: ExpertProblem, decision: Rebalance
) -> tuple[list[Stage], bool]:
    """Layers as each stage leaves them, by row; and whether all stages fit."""
    assert problem.old is not None
    bytes_N = problem.expert_bytes_N.astype(np.int64)
    moving_N = np.array([memory.moving for memory in group.memory_N], np.int64) // bytes_N
    fits_N = fitting_experts(group, bytes_N)
    held_N = np.bincount(
        problem.old.rank_LS[problem.old.expert_LS >= 0], minlength=len(group.ranks)
    )
    stages: list[Stage] = []
    done: dict[int, list[Move]] = {}
    fits = True
    for moves in _chunks(decision, moving_N):
        come_N, go_N = (_by_rank(moves, kind, len(group.ranks)) for kind in ("add", "remove"))
        fits &= bool((held_N + come_N <= fits_N + moving_N).all())
        held_N = held_N + come_N - go_N
        for move in moves:
            done.setdefault(move.layer, []).append(move)
        touched = dict.fromkeys(move.layer for move in moves)
        stages.append({row: _after(problem.old, decision, row, done[row]) for row in touched})
    rest = [row for row in range(len(problem.rows_LE)) if row not in done]
    stages.append({row: _after(problem.old, decision, row, []) for row in rest})
    return stages, fits and bool((held_N <= fits_N).all())


def _chunks(decision: Rebalance, moving_N: Ints) -> Iterator[list[Move]]:
    """Units in their order, together as long as no rank loads more than is kept for that."""
    waiting: list[Move] = []
    for batch in decision.batches:
        unit = [*waiting, *batch.moves]
        if waiting and (_by_rank(unit, "add", len(moving_N)) > moving_N).any():
            yield waiting
            unit = list(batch.moves)
        waiting = unit
    if waiting:
        yield waiting


def _by_rank(moves: Sequence[Move], kind: str, num_ranks: int) -> Ints:
    ranks = [move.rank for move in moves if move.kind == kind]
    return np.bincount(np.array(ranks, np.int64), minlength=num_ranks)


def _after(
    old: ExpertPlacement, decision: Rebalance, row: int, moves: Sequence[Move]
) -> ExpertPlacement:
    """One layer when these of its moves are done."""
    moves = [replace(move, layer=0) for move in moves]
    return placement_after(_layer(old, row), _layer(decision.placement, row), moves)


def _layer(placement: ExpertPlacement, row: int) -> ExpertPlacement:
    rows = slice(row, row + 1)
    return ExpertPlacement(
        expert_LS=placement.expert_LS[rows],
        rank_LS=placement.rank_LS[rows],
        weight_LS=placement.weight_LS[rows],
    )


def fitting_experts(group: GroupRanks, bytes_N: Ints) -> Ints:
    """Experts, of all layers together, that fit each rank beside all else."""
    room_N = np.array([memory.room_for_experts for memory in group.memory_N], np.int64)
    return np.maximum(room_N, 0) // bytes_N
