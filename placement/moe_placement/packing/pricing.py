"""The slices that are worth most together on one device: a knapsack in several dimensions.

Branch and bound, where the prices of the linear relaxation say what each departure from it costs
at least; the dearest departures are decided first.

Shapes: T kinds of slices, K dimensions.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy

from moe_placement.packing.problem import Floats, Ints

_MOST_NODES = 20_000
_ROUNDING = 1e-9


@dataclass(slots=True, eq=False)
class Knapsack:
    """Attributes:
    need_TK: what one slice needs.
    free_K: what the device has.
    most_T: slices of each kind at most; 1 of a kind that is in a group.
    apart_T: group of each kind, of which there is one slice at most; -1 for none.
    """

    need_TK: Ints
    free_K: Ints
    most_T: Ints
    apart_T: Ints
    _gains: list[float] = field(init=False)
    _prices: list[float] = field(init=False)
    _order: list[int] = field(init=False)
    _chosen: list[int] = field(init=False)
    _best: list[int] = field(init=False)
    _least_loss: float = field(init=False)
    _nodes_left: int = field(init=False)

    def dearest(self, worth_T: Floats) -> tuple[Ints, float]:
        """The counts of the pattern worth most, and a worth that none exceeds.

        Args:
            worth_T: of one slice, at least 0.
        """
        price_K = self._relaxed_prices(worth_T)
        gain_T = worth_T - self.need_TK @ price_K
        most = float(price_K @ self.free_K + np.maximum(gain_T, 0) @ self.most_T)
        self._gains, self._prices = gain_T.tolist(), price_K.tolist()
        self._order = np.argsort(-np.abs(gain_T), kind="stable").tolist()
        self._chosen, self._best = [0] * len(gain_T), [0] * len(gain_T)
        self._least_loss, self._nodes_left = most * (1 + _ROUNDING), _MOST_NODES
        self._decide(0, self.free_K.tolist(), frozenset(), 0.0)
        pattern_T = np.array(self._best, np.int64)
        done = self._nodes_left > 0
        return pattern_T, float(worth_T @ pattern_T) if done else most

    def _relaxed_prices(self, worth_T: Floats) -> Floats:
        """What one unit of each dimension is worth where slices can be divided; in shares of the
        device, for a solver likes figures near 1."""
        scale_K = np.maximum(self.free_K, 1)
        relaxed = scipy.optimize.linprog(
            -worth_T,
            A_ub=(self.need_TK / scale_K).T,
            b_ub=self.free_K / scale_K,
            bounds=np.stack([np.zeros(len(worth_T)), self.most_T], axis=1),
            method="highs",
        )
        if not relaxed.success:
            # Any prices give a bound; these give a loose one.
            return np.zeros(len(scale_K))
        price_K: Floats = np.maximum(-relaxed.ineqlin.marginals, 0.0) / scale_K
        return price_K

    def _decide(self, depth: int, left: list[int], held: frozenset[int], loss: float) -> None:
        """Try all counts of the next kind, the likeliest first, while the loss may be the least."""
        if depth == len(self._order):
            self._finish(left, loss)
            return
        kind = self._order[depth]
        need, gain, group = self.need_TK[kind].tolist(), self._gains[kind], int(self.apart_T[kind])
        most = 0 if group in held else self._room(kind, need, left)
        cap = int(self.most_T[kind])
        for count in range(most, -1, -1) if gain > 0 else range(most + 1):
            step = (cap - count) * gain if gain > 0 else -count * gain
            if loss + step >= self._least_loss - _ROUNDING or self._nodes_left <= 0:
                return
            self._nodes_left -= 1
            self._chosen[kind] = count
            now = held | {group} if count and group >= 0 else held
            rest = [have - count * each for have, each in zip(left, need, strict=True)]
            self._decide(depth + 1, rest, now, loss + step)
        self._chosen[kind] = 0

    def _room(self, kind: int, need: list[int], left: list[int]) -> int:
        fits = [have // each for have, each in zip(left, need, strict=True) if each]
        return min([int(self.most_T[kind]), *fits])

    def _finish(self, left: list[int], loss: float) -> None:
        loss += sum(price * have for price, have in zip(self._prices, left, strict=True))
        if loss < self._least_loss:
            self._least_loss, self._best = loss, list(self._chosen)
