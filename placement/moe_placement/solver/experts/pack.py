"""Several seeds, each improved, the fastest kept: one problem without rules beside slots.

Shapes: L layers, E experts, N ranks; X layers that are not good enough yet.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.bound import LayerBounds
from moe_placement.solver.experts.clusters import clustered
from moe_placement.solver.experts.even import EvenSearch
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.level_weights import level_weights
from moe_placement.solver.experts.local_search import Search
from moe_placement.solver.experts.longest_first import longest_first
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.experts.risk import seconds_at_risk, seconds_to_choose_by
from moe_placement.solver.experts.split_weights import split_weights
from moe_placement.solver.experts.wrap_around import wrap_around
from moe_placement.solver.problem import ExpertProblem, Floats, Ints

_SLACKS = (0.0, 0.003, 0.01, 0.03, 0.08)
_ROUNDING = 1e-6
_CLOSE = 3e-3
_FAR = 0.02
_LEVELLING_STEPS = 60
_MOST_GREEDY = 30_000_000
_FEW_EXPERTS = 1024
_EVEN_WORK = 6_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Packer:
    """Attributes:
    num_moves: most moves of local search for each seed and layer.
    """

    problem: ExpertProblem
    costs: RankCosts
    bounds: LayerBounds
    num_slots: int
    num_moves: int = 300

    def pack(self, rng: np.random.Generator) -> Layout:
        """Place every expert: wrap-around where it comes close to the bound, else the best of it
        and of further seeds, improved by local search."""
        best = self._wrapped(np.arange(len(self.problem.rows_LE)), splits=True)
        for worth, seed in self._further_seeds(best):
            layer_X = self._over(best, worth)
            if len(layer_X):
                layout = seed(layer_X)
                self.improve(layout, layer_X, rng)
                self._keep_faster(best, layer_X, layout)
        is_safer_L = np.zeros(len(self.problem.rows_LE), np.bool_)
        if self._is_small and not self.costs.per_read_PN.any():
            is_safer_L = self._prefer_even(best, rng)
        self._polish(best, ~is_safer_L, rng)
        if self._is_small and self.costs.per_read_PN.any():
            self._prefer_greedy(best)
        return best

    def _prefer_greedy(self, best: Layout) -> None:
        """Take equal replicas where they are expected to be faster in the end."""
        layers = np.arange(len(self.problem.rows_LE))
        greedy, least_L = self._greedy(layers), self.bounds.seconds_L
        seconds_L = seconds_to_choose_by(self.costs, greedy, least_L)
        is_better_L = seconds_L < seconds_to_choose_by(self.costs, best, least_L)
        best.put(layers[is_better_L], greedy.take(layers[is_better_L]))

    def _prefer_even(self, best: Layout, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Take replicas of about equal parts where they are nearly as fast, or faster once load
        has changed: a rank with many small parts minds drift and chance less than one with a few
        large parts. But not where like ranks, packed greedily without weights, would be better
        balanced.

        Returns:
            the layers that are slower now but safer.
        """
        layers = np.arange(len(self.problem.rows_LE))
        even = self._greedy(layers)
        if self._is_scalar and np.all(even.expert_LS >= 0):
            search_even = EvenSearch(self.costs, self.problem.rows_LE, self.bounds.seconds_L)
            search_even.improve(even, most_work=_EVEN_WORK)
        equal = even.take(layers)
        goal_L = self.bounds.seconds_L * (1 + (_ROUNDING if self._is_scalar else _CLOSE / 2))
        level_weights(self.costs, even, self.problem.rows_LE, goal_L, _LEVELLING_STEPS)
        search = Search(num_slots=self.num_slots, goal_L=goal_L, num_moves=self.num_moves)
        search.improve(self.costs, even, rng)
        best_L, even_L = best.slowest(self.costs), even.slowest(self.costs)
        is_as_good_L = even_L <= best_L * (1 + _CLOSE)
        is_safer_L = np.zeros(len(layers), np.bool_)
        if self._is_scalar:
            greedy_L = self._greedy_seconds()
            is_as_good_L &= (even_L <= best_L) | (even_L <= greedy_L)
            least_L = self.bounds.seconds_L
            at_risk_L = seconds_at_risk(self.costs, best, least_L)
            is_safer_L = seconds_at_risk(self.costs, equal, least_L) < at_risk_L
            is_safer_L &= ~is_as_good_L & (equal.slowest(self.costs) <= greedy_L)
            best.put(layers[is_safer_L], equal.take(layers[is_safer_L]))
        best.put(layers[is_as_good_L], even.take(layers[is_as_good_L]))
        return is_safer_L

    def _greedy_seconds(self) -> Floats:
        """Of greedy packing that does not mind replicas of one expert on one rank."""
        rows_LE = self.problem.rows_LE
        where = (self.costs, self.problem.slots_N, self.num_slots)
        return longest_first(*where, rows_LE, distinct=False).slowest(self.costs)

    def _further_seeds(self, best: Layout) -> list[tuple[float, Callable[[Ints], Layout]]]:
        """Seeds, and the gap to the bound from which on each is worth its time."""
        if self._is_scalar:
            return [(_ROUNDING, self._greedy)] if self._is_small else []
        num_experts, num_ranks = self.problem.rows_LE.shape[1], len(self.problem.slots_N)
        whole = [(_CLOSE, partial(self._wrapped, splits=False))] if num_experts > num_ranks else []
        greedy = [(_FAR, self._greedy)] if self._is_small else []
        return [*whole, (_CLOSE, best.take), *greedy]

    @property
    def _is_small(self) -> bool:
        """Small enough for packing replica by replica."""
        size = len(self.problem.rows_LE) * len(self.problem.slots_N) * self.num_slots
        return size <= _MOST_GREEDY

    @property
    def _is_scalar(self) -> bool:
        """Like ranks without a cost of reads, where bounds are often reached."""
        return self.costs.num_kinds == 1 and not self.costs.per_read_PN.any()

    def improve(self, layout: Layout, layer_X: Ints, rng: np.random.Generator) -> None:
        """Local search on a layout of some layers, towards their bounds."""
        self._search(layer_X).improve(self.costs, layout, rng)

    def _search(self, layer_X: Ints) -> Search:
        goal_X = self.bounds.seconds_L[layer_X] * (1 + _ROUNDING)
        return Search(num_slots=self.num_slots, goal_L=goal_X, num_moves=self.num_moves)

    def _over(self, best: Layout, gap: float) -> Ints:
        """Layers that are slower than their bound by more than a share of it."""
        return np.flatnonzero(best.slowest(self.costs) > self.bounds.seconds_L * (1 + gap))

    def _polish(self, best: Layout, may_L: NDArray[np.bool_], rng: np.random.Generator) -> None:
        """What is worth its time for a few layers only."""
        layer_X = self._over(best, _ROUNDING if self._is_scalar else _CLOSE)
        layer_X = layer_X[may_L[layer_X]]
        if len(layer_X) * self.problem.rows_LE.shape[1] > _FEW_EXPERTS:
            return
        for layer in layer_X.tolist() if self.costs.num_kinds == 1 else []:
            row = np.array([layer])
            other = clustered(
                self.costs,
                self.problem.slots_N,
                self.num_slots,
                self.problem.rows_LE[layer],
                float(self.bounds.seconds_L[layer]) * (1 + _ROUNDING),
                self.num_moves,
                rng,
            )
            self.improve(other, row, rng)
            self._keep_faster(best, row, other)
        split_weights(self.costs, best, layer_X)

    def _greedy(self, layer_X: Ints) -> Layout:
        rows_XE = self.problem.rows_LE[layer_X]
        return longest_first(self.costs, self.problem.slots_N, self.num_slots, rows_XE)

    def _wrapped(self, layers: Ints, *, splits: bool) -> Layout:
        """Wrap-around at the least of a few time limits that ranks can keep."""
        best = Layout.empty(len(layers), self.problem.slots_N)
        best_X = np.full(len(layers), np.inf)
        open_X = np.arange(len(layers))
        for slack in _SLACKS:
            limit_X = self.bounds.seconds_L[layers[open_X]] * (1 + slack)
            layout = wrap_around(
                self.costs,
                self.problem.slots_N,
                self.num_slots,
                self.problem.rows_LE[layers[open_X]],
                self.bounds.fluid.take(layers[open_X]),
                limit_X,
                splits=splits,
            )
            seconds_X = layout.slowest(self.costs)
            is_better_X = seconds_X < best_X[open_X]
            best.put(open_X[is_better_X], layout.take(np.flatnonzero(is_better_X)))
            best_X[open_X] = np.minimum(best_X[open_X], seconds_X)
            open_X = open_X[best_X[open_X] > limit_X * (1 + _ROUNDING)]
            if not len(open_X):
                break
        return best

    def _keep_faster(self, best: Layout, layer_X: Ints, other: Layout) -> None:
        """Put those layers of `other`, which stands for some of `best`, that are faster."""
        is_faster_X = other.slowest(self.costs) < best.take(layer_X).slowest(self.costs)
        best.put(layer_X[is_faster_X], other.take(np.flatnonzero(is_faster_X)))
