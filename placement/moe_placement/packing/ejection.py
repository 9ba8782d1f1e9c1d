"""Room for slices that have none: by moving others, or by turning out those that hinder least.

Guided ejection search (Nagata and Braysy, Operations Research Letters 37 (2009), made to save
vehicles): what could often not be placed becomes dear, and what is cheap is turned out for it.

Shapes: I slices, D devices, K dimensions, P placed slices, X some of them.
"""

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from moe_placement.packing.layout import NOWHERE, Layout
from moe_placement.packing.problem import Flags, Floats, Ints, Problem
from moe_placement.packing.seeds import Seeds

Amounts = TypeVar("Amounts", Ints, Floats)

# Of those whose place would do, how many are tried for a move to a third device.
_CHAINS = 24
_SHAKEN = 4
# Steps without a better layout after which a search is given up, and more for each slice left.
_PATIENCE = 300
_PATIENCE_EACH = 20


@dataclass(slots=True, eq=False)
class Ejection:
    """Attributes:
    steps_left: insertions that may still be tried, over all calls.
    dear_I: how often each slice could not be placed.
    """

    seeds: Seeds
    steps_left: int
    rng: np.random.Generator
    dear_I: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.dear_I = np.ones(self.problem.num_items)

    @property
    def problem(self) -> Problem:
        return self.seeds.problem

    def place(self, layout: Layout, among_D: Flags) -> Layout:
        """A layout on some devices that leaves out as few slices as could be found.

        Args:
            layout: where to begin; it is changed on the way.
        """
        pool = sorted(layout.unplaced, key=self.seeds.size_I.__getitem__)
        best, num_best, waited = layout.copy(), len(pool), 0
        while pool and self.steps_left > 0 and waited < _PATIENCE + _PATIENCE_EACH * num_best:
            self.steps_left -= 1
            waited += 1
            item = pool.pop()
            if not self._insert(layout, item, among_D):
                out = self._eject(layout, item, among_D)
                pool = [*out, *pool] if item in out else [*pool, *out]
                self._shake(layout, among_D)
            if len(pool) < num_best:
                best, num_best, waited = layout.copy(), len(pool), 0
        return best

    def _insert(self, layout: Layout, item: int, among_D: Flags) -> bool:
        """Put a slice where it fits as it is, or where it does once another has moved away."""
        fits_D = layout.fits_D(item) & among_D
        if fits_D.any():
            layout.put(item, self.seeds.best_device(layout, item, fits_D))
            return True
        self.dear_I[item] += 1
        other_X = self._replaceable(layout, item, among_D)
        other_X = other_X[np.argsort(self.seeds.size_I[other_X], kind="stable")[:_CHAINS]]
        fits_XD = layout.fits_XD(other_X) & among_D
        fits_XD[np.arange(len(other_X)), layout.device_I[other_X]] = False
        for number in np.flatnonzero(fits_XD.any(1))[:1].tolist():
            other = int(other_X[number])
            target = self.seeds.best_device(layout, other, fits_XD[number])
            layout.put(item, layout.take(other))
            layout.put(other, target)
            return True
        return False

    def _eject(self, layout: Layout, item: int, among_D: Flags) -> list[int]:
        """Put a slice in the place of the cheapest other, or of several on one device.

        Returns:
            those turned out; the slice itself where all places together are too small.
        """
        other_X = self._replaceable(layout, item, among_D)
        if len(other_X):
            keys = (self.rng.random(len(other_X)), self.seeds.size_I[other_X], self.dear_I[other_X])
            out = [int(other_X[np.lexsort(keys)[0]])]
        else:
            out = self._cheapest_several(layout, item, among_D)
        if not out:
            return [item]
        device = int(layout.device_I[out[0]])
        for other in out:
            layout.take(other)
        layout.put(item, device)
        return out

    def _replaceable(self, layout: Layout, item: int, among_D: Flags) -> Ints:
        """Placed slices whose place would do for another one."""
        problem, item_P = self.problem, self._placed(layout, item, among_D)
        device_P = layout.device_I[item_P]
        class_P = problem.class_D[device_P]
        left_KP = layout.left_KD[:, device_P] + problem.need_KCI[:, class_P, item_P]
        does_P = (left_KP >= problem.need_KCI[:, class_P, item]).all(0)
        group = problem.apart_I[item]
        if group >= 0:
            held_P = layout.held_GD[group, device_P] > 0
            does_P &= ~held_P | (problem.apart_I[item_P] == group)
        other_X: Ints = item_P[does_P]
        return other_X

    def _cheapest_several(self, layout: Layout, item: int, among_D: Flags) -> list[int]:
        """On each device the cheapest leave first, until there is room; the cheapest of these."""
        problem, item_P = self.problem, self._placed(layout, item, among_D)
        if problem.apart_I[item] >= 0:
            held_D = layout.held_GD[problem.apart_I[item]] > 0
            item_P = item_P[~held_D[layout.device_I[item_P]]]
        keys = (self.seeds.size_I[item_P], self.dear_I[item_P], layout.device_I[item_P])
        item_P = item_P[np.lexsort(keys)]
        device_P = layout.device_I[item_P]
        first_P, class_P = np.searchsorted(device_P, device_P), problem.class_D[device_P]
        freed_KP = _running(problem.need_KCI[:, class_P, item_P], first_P)
        room_KP = layout.left_KD[:, device_P] + freed_KP
        does_P = np.flatnonzero((room_KP >= problem.need_KCI[:, class_P, item]).all(0))
        if not len(does_P):
            return []
        last = does_P[np.argmin(_running(self.dear_I[item_P], first_P)[does_P])]
        found: list[int] = item_P[first_P[last] : last + 1].tolist()
        return found

    def _placed(self, layout: Layout, item: int, among_D: Flags) -> Ints:
        """Slices on devices that another one may be on."""
        item_P = np.flatnonzero(layout.device_I != NOWHERE)
        there_P: Ints = item_P[(among_D & self.problem.may_ID[item])[layout.device_I[item_P]]]
        return there_P

    def _shake(self, layout: Layout, among_D: Flags) -> None:
        """Move a few slices to devices that they fit, so that the search goes on elsewhere."""
        for item in self.rng.integers(self.problem.num_items, size=_SHAKEN).tolist():
            if layout.device_I[item] == NOWHERE:
                continue
            fits_D = layout.fits_D(item) & among_D & layout.is_open_D
            fits_D[layout.device_I[item]] = False
            if fits_D.any():
                layout.take(item)
                layout.put(item, int(self.rng.choice(np.flatnonzero(fits_D))))


def _running(value_XP: Amounts, first_P: Ints) -> Amounts:
    """Sums along the last axis from the first of each run up to each."""
    total_XP = np.cumsum(value_XP, axis=-1)
    return total_XP - total_XP[..., first_P] + value_XP[..., first_P]
