"""Devices filled by patterns: near the optimum, and a bound, where there are few kinds of slices.

A pattern says how many slices of each kind are on a device. Which patterns, and how often, is a
linear program whose columns are made as they are needed (Gilmore and Gomory, Operations Research 9
(1961)); its value is the strongest bound in use. The patterns found, in whole numbers, are a
packing.

Shapes: T kinds of slices, G kinds of devices, K dimensions, P patterns.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy

from moe_placement.packing.bound import LEFT_OUT, PackBound, bound_of
from moe_placement.packing.integers import IntegerProgram
from moe_placement.packing.kinds import Kinds
from moe_placement.packing.layout import NOWHERE, Layout
from moe_placement.packing.pricing import Knapsack
from moe_placement.packing.problem import Floats, Ints, Problem

_MOST_KINDS = 40
_MOST_DEVICE_KINDS = 4
_MOST_PRICINGS = 200
_MOST_VARIED = 60
_NEAR = 0.2


def few_enough(kinds: Kinds) -> bool:
    """Whether making patterns takes little time."""
    return len(kinds.items_T) <= _MOST_KINDS and len(kinds.devices_G) <= _MOST_DEVICE_KINDS


@dataclass(slots=True, eq=False)
class Patterns:
    """Attributes:
    columns: kind of device, and slices of each kind on it.
    cost: of the best fractional mix of all patterns, from below.
    """

    kinds: Kinds
    time_limit: float
    columns: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    cost: float = 0.0

    @property
    def bound(self) -> PackBound:
        return bound_of(self.cost, self.kinds.num_devices)

    def add_layout(self, layout: Layout) -> None:
        """The patterns of a packing that is known."""
        kind_I = np.zeros(layout.problem.num_items, np.int64)
        for kind, items in enumerate(self.kinds.items_T):
            kind_I[list(items)] = kind
        for kind, devices in enumerate(self.kinds.devices_G):
            for device in devices:
                held = kind_I[layout.device_I == device]
                self._add(kind, np.bincount(held, minlength=len(self.kinds.items_T)))

    def improve(self) -> None:
        """Make patterns until none betters the mix, or enough were made."""
        for _ in range(_MOST_PRICINGS // len(self.kinds.devices_G)):
            price_T = self._prices()
            costs = self.kinds.num_T @ price_T
            found = False
            for kind, opens in enumerate(self.kinds.opens_G.tolist()):
                pattern_T, most = self._dearest(kind, price_T)
                costs += self.kinds.num_G[kind] * min(0.0, opens - most)
                found |= self._add(kind, pattern_T)
            self.cost = max(self.cost, float(costs))
            if not found:
                return

    def vary(self, rng: np.random.Generator) -> None:
        """Further patterns, for other prices near by: whole numbers ask for more of them than the
        fractional mix does."""
        price_T = self._prices()
        for _ in range(_MOST_VARIED // len(self.kinds.devices_G)):
            near_T = price_T * rng.uniform(1 - _NEAR, 1 + _NEAR, len(price_T))
            for kind in range(len(self.kinds.devices_G)):
                self._add(kind, self._dearest(kind, near_T)[0])

    def layout(self, problem: Problem) -> Layout | None:
        """The best packing by whole numbers of the patterns; None where none was found."""
        kinds, num = self.kinds, len(self.columns)
        cover_TP, uses_GP = self._tables()
        size = len(kinds.items_T)
        cover = np.hstack([cover_TP, np.eye(size)])
        room = np.hstack([uses_GP, np.zeros((len(kinds.num_G), size))])
        answer = IntegerProgram(
            self._costs(),
            [
                scipy.optimize.LinearConstraint(cover, lb=kinds.num_T),
                scipy.optimize.LinearConstraint(room, ub=kinds.num_G),
            ],
            scipy.optimize.Bounds(0, np.concatenate([uses_GP.T @ kinds.num_G, kinds.num_T])),
        ).solve(self.time_limit)
        return None if answer is None else self._placed(problem, answer.x[:num])

    def _placed(self, problem: Problem, times_P: Ints) -> Layout:
        waiting = [list(items) for items in self.kinds.items_T]
        free = [list(devices) for devices in self.kinds.devices_G]
        device_I = np.full(problem.num_items, NOWHERE)
        for (kind, pattern), times in zip(self.columns, times_P.tolist(), strict=True):
            for _ in range(times):
                device = free[kind].pop(0)
                for items, number in zip(waiting, pattern, strict=True):
                    for item in items[:number]:
                        device_I[item] = device
                    del items[:number]
        return Layout.of(problem, device_I)

    def _add(self, kind: int, pattern_T: Ints) -> bool:
        column = (kind, tuple(pattern_T.tolist()))
        is_new = any(column[1]) and column not in self.columns
        if is_new:
            self.columns.append(column)
        return is_new

    def _prices(self) -> Floats:
        """What one slice of each kind is worth in the mix."""
        size = len(self.kinds.items_T)
        cover_TP, uses_GP = self._tables()
        mix = scipy.optimize.linprog(
            self._costs(),
            A_ub=np.vstack(
                [
                    np.hstack([-cover_TP, -np.eye(size)]),
                    np.hstack([uses_GP, np.zeros((len(uses_GP), size))]),
                ]
            ),
            b_ub=np.concatenate([-self.kinds.num_T, self.kinds.num_G]),
            method="highs",
        )
        if not mix.success:
            return np.zeros(size)
        prices: Floats = np.maximum(-mix.ineqlin.marginals[:size], 0.0)
        return prices

    def _dearest(self, kind: int, price_T: Floats) -> tuple[Ints, float]:
        """The pattern of a kind of device that is worth most, and its worth, from above."""
        kinds = self.kinds
        need_TK, free_K = kinds.in_units(kind)
        most_T = kinds.most_TG()[:, kind]
        return Knapsack(need_TK, free_K, most_T, kinds.apart_T).dearest(price_T)

    def _tables(self) -> tuple[Floats, Floats]:
        cover_TP = np.array([pattern for _, pattern in self.columns], float).reshape(
            len(self.columns), len(self.kinds.items_T)
        )
        uses_GP = np.zeros((len(self.kinds.devices_G), len(self.columns)))
        for number, (kind, _) in enumerate(self.columns):
            uses_GP[kind, number] = 1.0
        return cover_TP.T, uses_GP

    def _costs(self) -> Floats:
        opens = [float(self.kinds.opens_G[kind]) for kind, _ in self.columns]
        left_out = [float(LEFT_OUT * self.kinds.num_devices)] * len(self.kinds.items_T)
        return np.array(opens + left_out)
