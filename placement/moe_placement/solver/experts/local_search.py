"""Local search on the true cost: the slowest rank of every layer sheds work until none helps.

Shapes: L layers, N ranks, S slots of all ranks; X layers still under search.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.loads import Loads
from moe_placement.solver.experts.moves import Moves
from moe_placement.solver.experts.neighbourhood import Neighbourhood
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import Floats, Ints

_LEAST_GAIN = 1e-9
_PATIENCE = 10


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What two slots of each of some layers held before a move."""

    layer_X: Ints
    slot_X2: Ints
    expert_X2: Ints
    rows_X2: Floats

    def undo(self, layout: Layout, layers: NDArray[np.bool_]) -> None:
        """Put it back in those layers that the mask names."""
        x = layers[self.layer_X]
        layer_X1 = self.layer_X[x, None]
        layout.expert_LS[layer_X1, self.slot_X2[x]] = self.expert_X2[x]
        layout.rows_LS[layer_X1, self.slot_X2[x]] = self.rows_X2[x]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """How to search.

    Attributes:
        num_slots: most slots used in a layer.
        goal_L: seconds at which a layer is good enough.
        num_moves: most moves in each layer.
        domain_N: failure domains; where given, no expert leaves one that it is in.
    """

    num_slots: int
    goal_L: Floats
    num_moves: int
    domain_N: Ints | None = None

    def improve(self, costs: RankCosts, layout: Layout, rng: np.random.Generator) -> None:
        """Improve a layout in place, all layers side by side."""
        for _ in self.steps(costs, layout, rng):
            pass

    def steps(self, costs: RankCosts, layout: Layout, rng: np.random.Generator) -> Iterator[Change]:
        """The same move by move: after each, what it changed.

        A layer's search ends at its goal, or after some neighbourhoods without a move that helps.
        """
        if len(layout.slots_N) < 2:
            return
        loads = Loads.of(costs, layout)
        failures_L = np.zeros(len(self.goal_L), np.int64)
        slowest_L = loads.seconds_LN.max(1)
        for _ in range(self.num_moves):
            layer_X = np.flatnonzero((slowest_L > self.goal_L) & (failures_L < _PATIENCE))
            if not len(layer_X):
                return
            may_split_X = loads.used_L[layer_X] < self.num_slots
            around = Neighbourhood.around(loads, layer_X, self.domain_N, rng)
            moves = around.best(may_split_X)
            helps_X = moves.seconds_X < slowest_L[layer_X] * (1 - _LEAST_GAIN)
            failures_L[layer_X] = np.where(helps_X, 0, failures_L[layer_X] + 1)
            layer_X, moves = layer_X[helps_X], moves.take(helps_X)
            slot_X2 = np.stack([moves.from_X, moves.to_X], axis=1)
            held = (loads.layout.expert_LS, loads.layout.rows_LS)
            change = Change(layer_X, slot_X2, *(a[layer_X[:, None], slot_X2] for a in held))
            _apply(loads, layer_X, moves)
            slowest_L[layer_X] = loads.seconds_LN[layer_X].max(1)
            yield change


def _apply(loads: Loads, layer_X: Ints, moves: Moves) -> None:
    """Do one move in each of these layers."""
    source_X, target_X = moves.from_X, moves.to_X
    experts_LS, rows_LS = loads.layout.expert_LS, loads.layout.rows_LS
    expert_X, other_X = experts_LS[layer_X, source_X], experts_LS[layer_X, target_X]
    mine_X, theirs_X = rows_LS[layer_X, source_X], rows_LS[layer_X, target_X]
    left_X = np.where(moves.is_swap_X, theirs_X, mine_X - moves.rows_X)
    is_empty_X = ~moves.is_swap_X & (moves.rows_X >= mine_X)
    stays_X = np.where(moves.is_swap_X, other_X, expert_X)
    loads.used_L[layer_X] += (~moves.is_swap_X & (other_X < 0)).astype(np.int64) - is_empty_X
    experts_LS[layer_X, target_X] = expert_X
    rows_LS[layer_X, target_X] = np.where(moves.is_swap_X, mine_X, theirs_X + moves.rows_X)
    experts_LS[layer_X, source_X] = np.where(is_empty_X, -1, stays_X)
    rows_LS[layer_X, source_X] = np.where(is_empty_X, 0.0, left_X)
    ranks_S = loads.layout.ranks
    loads.refresh(layer_X, np.stack([ranks_S[source_X], ranks_S[target_X]], axis=1))
