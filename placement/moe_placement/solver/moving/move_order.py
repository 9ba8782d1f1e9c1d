"""In what order experts move: most gain for fewest bytes first, and every state between sound.

A unit is what must switch together: one expert that comes, with one that leaves for it, or a ring
of experts that take each other's place. New weights wait beside the slots until their unit
switches, between two steps; so no rank holds more than its slots and no expert is ever nowhere.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from moe_placement.plan_diff import Move
from moe_placement.solver.moving.moves import added, replicas
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats

# Of experts on ranks.
_Places = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class MoveBatch:
    """Moves that take effect together, their layers counted among MoE layers alone.

    Attributes:
        num_bytes: of experts that are loaded for it.
        num_steps: steps that the loading is spread over; above 1 where a unit is more than the
            budget of one.
    """

    moves: tuple[Move, ...]
    num_bytes: float
    num_steps: int


def order_moves(
    problem: ExpertProblem, new: ExpertPlacement, *, gain_L: Floats, step_bytes: float
) -> tuple[MoveBatch, ...]:
    """Batches that lead from the problem's old placement to the new one.

    Layers come by their gain per byte; within one, replicas by the rows they take per byte.

    Args:
        gain_L: seconds that the slowest rank of each layer gains.
        step_bytes: most bytes of experts to load during one step, all ranks together.
    """
    assert problem.old is not None and step_bytes > 0
    changes = _changes(problem.old, new, problem)
    bytes_L = np.array(
        [sum(problem.expert_bytes_N[rank] for _, rank in change.adds) for change in changes]
    )
    order = np.argsort(-gain_L / np.maximum(bytes_L, 1e-300), kind="stable")
    units = (unit for layer in order for unit in changes[layer].units(int(layer)))
    return tuple(_batches(units, problem.expert_bytes_N, step_bytes))


def _batches(
    units: Iterable[tuple[Move, ...]], expert_bytes_N: Floats, step_bytes: float
) -> Iterator[MoveBatch]:
    waiting: list[Move] = []
    num_bytes = 0.0
    for unit in units:
        unit_bytes = sum(expert_bytes_N[move.rank] for move in unit if move.kind == "add")
        if waiting and num_bytes + unit_bytes > step_bytes:
            yield MoveBatch(tuple(waiting), num_bytes, max(1, ceil(num_bytes / step_bytes)))
            waiting, num_bytes = [], 0.0
        waiting += unit
        num_bytes += float(unit_bytes)
    if waiting:
        yield MoveBatch(tuple(waiting), num_bytes, max(1, ceil(num_bytes / step_bytes)))


@dataclass(slots=True)
class _Change:
    """One layer on its way.

    Attributes:
        held: the ranks that hold each expert now.
        free: slots that each rank has left.
        adds: (expert, rank) to come, the most wanted first.
        leaving: experts to go, by rank.
    """

    held: dict[int, set[int]]
    free: list[int]
    adds: _Places
    leaving: dict[int, set[int]]

    def units(self, layer: int) -> Iterator[tuple[Move, ...]]:
        while self.adds:
            num_waiting = len(self.adds)
            for expert, rank in list(self.adds):
                unit = self._unit(expert, rank)
                if unit is not None:
                    yield self._do(layer, *unit)
            if len(self.adds) == num_waiting:
                yield self._do(layer, *self._ring())
        rest = [(expert, rank) for rank, experts in self.leaving.items() for expert in experts]
        if rest:
            yield self._do(layer, [], sorted(rest))

    def _unit(self, expert: int, rank: int) -> tuple[_Places, _Places] | None:
        """Adds and removals, or None where each expert that may leave the rank is nowhere else."""
        if self.free[rank]:
            return [(expert, rank)], []
        spare = [each for each in self.leaving[rank] if len(self.held[each]) > 1]
        return ([(expert, rank)], [(min(spare), rank)]) if spare else None

    def _ring(self) -> tuple[_Places, _Places]:
        """Experts that are each held once, and each wait for the place of the next.

        Called when nothing else can move. Every rank that waits is full, so something leaves it,
        held nowhere else; that expert waits for a full rank in turn, until one comes again.
        """
        targets = dict(self.adds)
        rank = self.adds[0][1]
        path: dict[int, int] = {}
        while rank not in path:
            path[rank] = min(self.leaving[rank])
            rank = targets[path[rank]]
        ring = list(path.items())[list(path).index(rank) :]
        removals = [(expert, old_rank) for old_rank, expert in ring]
        return [(expert, targets[expert]) for expert, _ in removals], removals

    def _do(self, layer: int, adds: _Places, removals: _Places) -> tuple[Move, ...]:
        for expert, rank in removals:
            self.held[expert].remove(rank)
            self.leaving[rank].remove(expert)
            self.free[rank] += 1
        for expert, rank in adds:
            self.held[expert].add(rank)
            self.adds.remove((expert, rank))
            self.free[rank] -= 1
        return (
            *(Move(layer, expert, rank, "remove") for expert, rank in removals),
            *(Move(layer, expert, rank, "add") for expert, rank in adds),
        )


def _changes(old: ExpertPlacement, new: ExpertPlacement, problem: ExpertProblem) -> list[_Change]:
    num_layers, num_experts = problem.rows_LE.shape
    changes = [
        _Change(
            held={expert: set() for expert in range(num_experts)},
            free=problem.slots_N.tolist(),
            adds=[],
            leaving={rank: set() for rank in range(len(problem.slots_N))},
        )
        for _ in range(num_layers)
    ]
    for layer, expert, rank in replicas(old).tolist():
        changes[layer].held[expert].add(rank)
        changes[layer].free[rank] -= 1
    for layer, expert, rank in added(new, old).tolist():
        changes[layer].leaving[rank].add(expert)
    num_replicas_LE = np.zeros((num_layers, num_experts))
    new_X3 = replicas(new)
    np.add.at(num_replicas_LE, (new_X3[:, 0], new_X3[:, 1]), 1)
    worth_LE = problem.rows_LE / np.maximum(num_replicas_LE, 1)
    come_X3 = added(old, new)
    worth_X = worth_LE[come_X3[:, 0], come_X3[:, 1]] / problem.expert_bytes_N[come_X3[:, 2]]
    for layer, expert, rank in come_X3[np.argsort(-worth_X, kind="stable")].tolist():
        changes[layer].adds.append((expert, rank))
    return changes
