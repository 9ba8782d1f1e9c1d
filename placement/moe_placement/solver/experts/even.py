"""Replicas that share their expert's rows evenly, for engines that route without weights.

Greedy packing, then local search on the true cost over which expert is in which slot; every slot
is used. Shapes: L layers, E experts, N ranks, S slots of all ranks; X layers still under search,
J slots of the slowest rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.even_moves import Held, best_moves
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.longest_first import longest_first
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import Floats, Ints

_LEAST_GAIN = 1e-9
_NUM_MOVES = 400
_MOST_WORK = 20_000_000
_MOST_KICKS = 12
_KICKING_WORK = 500_000
_CLOSE = 3e-4
_KICKED = 3


def even_layout(
    costs: RankCosts, slots_N: Ints, rows_LE: Floats, bound_L: Floats, rng: np.random.Generator
) -> Layout:
    """Fill every slot so that the slowest rank is fast with replicas that share evenly.

    Args:
        bound_L: seconds that no layer can beat; next to them a layer is good enough.
    """
    layout = longest_first(costs, slots_N, int(slots_N.sum()), rows_LE)
    fill_slots(layout, rows_LE)
    search = EvenSearch(costs, rows_LE, bound_L * (1 + _CLOSE))
    search.improve(layout)
    search.kick(layout, rng)
    return layout


def fill_slots(layout: Layout, rows_LE: Floats) -> None:
    """Give each empty slot the expert whose replicas have most to do of those not on its rank, and
    every replica an equal share, in place."""
    count_LE = _counts(layout.expert_LS, rows_LE.shape[1])
    rank_S = layout.ranks
    for layer, slot in np.argwhere(layout.expert_LS < 0).tolist():
        expert_S = layout.expert_LS[layer]
        share_E = rows_LE[layer] / np.maximum(count_LE[layer], 1)
        here_S = expert_S[rank_S == rank_S[slot]]
        share_E[here_S[here_S >= 0]] = -1.0
        expert = int(share_E.argmax())
        expert_S[slot] = expert
        count_LE[layer, expert] += 1
    share_evenly(layout, rows_LE)


def share_evenly(layout: Layout, rows_LE: Floats) -> None:
    """Give all replicas of an expert the same rows, in place."""
    share_LE = rows_LE / np.maximum(_counts(layout.expert_LS, rows_LE.shape[1]), 1)
    rows_LS = np.take_along_axis(share_LE, np.maximum(layout.expert_LS, 0), axis=1)
    layout.rows_LS = np.where(layout.expert_LS >= 0, rows_LS, 0.0)


def _counts(expert_LS: Ints, num_experts: int) -> Ints:
    """Replicas of each expert."""
    line_L1 = np.arange(len(expert_LS))[:, None] * (num_experts + 1)
    key_LS = line_L1 + np.where(expert_LS >= 0, expert_LS, num_experts)
    counts = np.bincount(key_LS.ravel(), minlength=len(expert_LS) * (num_experts + 1))
    return counts.reshape(len(expert_LS), num_experts + 1)[:, :-1]


@dataclass(frozen=True, slots=True, eq=False)
class EvenSearch:
    """Local search over layouts without an empty slot, all layers side by side."""

    costs: RankCosts
    rows_LE: Floats
    goal_L: Floats

    def improve(self, layout: Layout, *, most_work: int = _MOST_WORK) -> None:
        """Improve a layout in place.

        Args:
            most_work: swaps to weigh in all steps.
        """
        for _ in self.steps(layout, most_work):
            pass

    def steps(self, layout: Layout, most_work: int = _MOST_WORK) -> Iterator[None]:
        """The same move by move. A layer's search ends at its goal, or where no move helps."""
        open_L = np.full(len(self.rows_LE), len(layout.slots_N) > 1)
        for _ in range(int(np.clip(most_work // self._size(layout), 8, _NUM_MOVES))):
            layer_X = np.flatnonzero(open_L)
            if not len(layer_X):
                return
            held = Held.of(
                self.costs,
                layout.take(layer_X),
                self.rows_LE[layer_X],
                _counts(layout.expert_LS[layer_X], self.rows_LE.shape[1]),
            )
            moves = best_moves(held, _LEAST_GAIN)
            helps_X = moves.seconds_X < held.slowest_X * (1 - _LEAST_GAIN)
            helps_X &= held.slowest_X > self.goal_L[layer_X]
            open_L[layer_X[~helps_X]] = False
            layer_X, moves = layer_X[helps_X], moves.take(helps_X)
            slot_X2 = np.stack([moves.slot_X, moves.other_X], axis=1)
            layout.expert_LS[layer_X[:, None], slot_X2] = moves.expert_X2
            changed = layout.take(layer_X)
            share_evenly(changed, self.rows_LE[layer_X])
            layout.rows_LS[layer_X] = changed.rows_LS
            yield

    def kick(self, layout: Layout, rng: np.random.Generator) -> None:
        """Where a search has ended above its goal, change some slots at random and search on;
        what is faster is kept, in place."""
        layers = np.arange(len(self.rows_LE))
        for _ in range(min(_KICKING_WORK // self._size(layout), _MOST_KICKS)):
            slowest_L = layout.slowest(self.costs)
            layer_X = layers[slowest_L > self.goal_L]
            if not len(layer_X) or len(layout.slots_N) < 2:
                return
            other = layout.take(layer_X)
            _shake(other, rng)
            part = EvenSearch(self.costs, self.rows_LE[layer_X], self.goal_L[layer_X])
            share_evenly(other, part.rows_LE)
            part.improve(other)
            is_faster_X = other.slowest(self.costs) < slowest_L[layer_X]
            layout.put(layer_X[is_faster_X], other.take(np.flatnonzero(is_faster_X)))

    def _size(self, layout: Layout) -> int:
        """Swaps that each step weighs."""
        return layout.expert_LS.size * int(layout.slots_N.max())


def _shake(layout: Layout, rng: np.random.Generator) -> None:
    """Swap the experts of some pairs of slots at random, where ranks may hold them."""
    rank_S, layer_L = layout.ranks, np.arange(len(layout.expert_LS))
    for _ in range(_KICKED):
        slot_L2 = rng.integers(0, len(rank_S), (len(layer_L), 2))
        expert_L2 = layout.expert_LS[layer_L[:, None], slot_L2]
        may_L: NDArray[np.bool_] = np.ones(len(layer_L), np.bool_)
        for slot_L, expert_L in (
            (slot_L2[:, 0], expert_L2[:, 1]),
            (slot_L2[:, 1], expert_L2[:, 0]),
        ):
            on_rank_LS = rank_S == rank_S[slot_L][:, None]
            may_L &= ~(on_rank_LS & (layout.expert_LS == expert_L[:, None])).any(1)
        layer_X = layer_L[may_L]
        layout.expert_LS[layer_X[:, None], slot_L2[may_L]] = expert_L2[may_L][:, ::-1]
