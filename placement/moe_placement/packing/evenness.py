"""Packings whose fullest device is as little used as possible, and the others as evenly.

Largest first onto whatever stays least used (Graham, SIAM Journal on Applied Mathematics 17
(1969)), then moves and swaps that lower the fuller of two devices, from the fullest down.

Shapes: I slices, D devices, K dimensions, P placed slices.
"""

from dataclasses import dataclass, field

import numpy as np

from moe_placement.packing.answer import Found
from moe_placement.packing.fewest import FewestSearch
from moe_placement.packing.kinds import Kinds
from moe_placement.packing.layout import NOWHERE, Layout
from moe_placement.packing.level import least_level, level, levels_D, used_X, ways_to_prove
from moe_placement.packing.problem import Flags, Floats, Ints, Problem
from moe_placement.packing.seeds import Seeds

_ROUNDING = 1e-9
_WORK = 5_000_000
_MOST_LOOKS = 8_000
_KICKS = 3
_CLOSE = 1e-3


def most_even(problem: Problem, time_limit: float, seed: int) -> Found:
    """Place as many slices as possible, then those as evenly as possible."""
    spread, least_unplaced = EvenSearch(Seeds(problem)).spread(), 0
    if spread.unplaced:
        packed = FewestSearch(Seeds(problem), time_limit, seed)
        packed.run()
        spread, least_unplaced = packed.best, packed.bound.unplaced
    start, item_X = spread.only_placed()
    if not len(item_X):
        return Found(spread, least_unplaced)
    best, least = _evened(start, time_limit, seed)
    return Found(best.within(problem, item_X), least_unplaced, least_level=least)


def _evened(start: Layout, time_limit: float, seed: int) -> tuple[Layout, float]:
    """The same slices as evenly as could be found, and the least that the level can be."""
    search = EvenSearch(Seeds(start.problem))
    tried = [one for one in (start, search.spread()) if not one.unplaced]
    for one in tried:
        search.improve(one)
    best = min(tried, key=level)
    least = least_level(start.problem, level(best))
    best = search.vary(best, least * (1 + _CLOSE), np.random.default_rng(seed))
    for is_worth, way in ways_to_prove(Kinds.of(start.problem)):
        if is_worth and time_limit > 0 and level(best) > least * (1 + _CLOSE):
            best, least = way(best, least, time_limit)
    search.improve(best)
    return best, min(least, level(best))


@dataclass(slots=True, eq=False)
class EvenSearch:
    """Attributes:
    looks_left: slices that may still be looked at, over all calls.
    """

    seeds: Seeds
    looks_left: int = field(init=False)

    def __post_init__(self) -> None:
        size = self.problem.num_items + self.problem.num_devices
        self.looks_left = min(_MOST_LOOKS, _WORK // size)

    @property
    def problem(self) -> Problem:
        return self.seeds.problem

    def spread(self) -> Layout:
        """Largest first, each where the device stays the least used; some may find no room."""
        layout = Layout.empty(self.problem)
        for item in np.argsort(-self.seeds.need_KI.max(0), kind="stable").tolist():
            fits_D = layout.fits_D(item)
            if fits_D.any():
                level_D = np.where(fits_D, self._level_with(layout, item), np.inf)
                layout.put(item, int(np.argmin(level_D)))
        return layout

    def improve(self, layout: Layout) -> None:
        """Moves and swaps, until none lowers the fuller of two devices or enough were looked at."""
        better = True
        while better and self.looks_left > 0:
            order = np.argsort(-levels_D(layout), kind="stable").tolist()
            better = bool([device for device in order if self._lower_far(layout, device)])

    def vary(self, best: Layout, goal: float, rng: np.random.Generator) -> Layout:
        """Improve again from layouts near by until the level is low enough."""
        while self.looks_left > 0 and level(best) > goal:
            layout = best.copy()
            for item in rng.integers(self.problem.num_items, size=_KICKS).tolist():
                fits_D = layout.fits_D(item)
                if fits_D.any():
                    layout.take(item)
                    layout.put(item, int(rng.choice(np.flatnonzero(fits_D))))
            self.improve(layout)
            best = min(best, layout, key=level)
        return best

    def _lower_far(self, layout: Layout, device: int) -> bool:
        """Lower one device until no single change does."""
        lowered = False
        while self.looks_left > 0 and self._lower(layout, device):
            lowered = True
        return lowered

    def _lower(self, layout: Layout, device: int) -> bool:
        items = np.flatnonzero(layout.device_I == device).tolist()
        self.looks_left -= len(items)
        return any(self._move(layout, item) or self._swap(layout, item) for item in items)

    def _move(self, layout: Layout, item: int) -> bool:
        """Move a slice where the device stays below what its own is now."""
        here = int(layout.device_I[item])
        fits_D = layout.fits_D(item)
        fits_D[here] = False
        level_D = np.where(fits_D, self._level_with(layout, item), np.inf)
        target = int(np.argmin(level_D))
        if not level_D[target] < levels_D(layout)[here] - _ROUNDING:
            return False
        layout.take(item)
        layout.put(item, target)
        return True

    def _swap(self, layout: Layout, item: int) -> bool:
        """Change places with a slice elsewhere so that both devices get below what this is now."""
        here = int(layout.device_I[item])
        other_P = self._partners(layout, item)
        level_P = self._level_swapped(layout, item, other_P)
        if not level_P.min(initial=np.inf) < levels_D(layout)[here] - _ROUNDING:
            return False
        other = int(other_P[np.argmin(level_P)])
        layout.take(item)
        layout.put(item, layout.take(other))
        layout.put(other, here)
        return True

    def _partners(self, layout: Layout, item: int) -> Ints:
        """Slices elsewhere that may change places with one, room aside."""
        problem, here = self.problem, int(layout.device_I[item])
        other_P = np.flatnonzero((layout.device_I != NOWHERE) & (layout.device_I != here))
        there_P = layout.device_I[other_P]
        may_P = problem.may_ID[other_P, here] & problem.may_ID[item, there_P]
        if problem.num_groups:
            may_P &= self._stay_apart(layout, item, other_P)
        partner_P: Ints = other_P[may_P]
        return partner_P

    def _stay_apart(self, layout: Layout, item: int, other_P: Ints) -> Flags:
        """Whether neither comes to a device with one that it must be apart from."""
        mine, theirs_P = self.problem.apart_I[item], self.problem.apart_I[other_P]
        held_there_P = (mine >= 0) & (layout.held_GD[mine, layout.device_I[other_P]] > 0)
        held_here_P = (theirs_P >= 0) & (layout.held_GD[theirs_P, layout.device_I[item]] > 0)
        unlike_P = (mine < 0) | (theirs_P != mine)
        apart_P: Flags = ~(unlike_P & (held_there_P | held_here_P))
        return apart_P

    def _level_swapped(self, layout: Layout, item: int, other_P: Ints) -> Floats:
        """The level of the fuller of both devices after a swap; inf where there is no room."""
        problem, here = self.problem, int(layout.device_I[item])
        there_P = layout.device_I[other_P]
        class_P, own_KI = problem.class_D[there_P], problem.need_KI(here)
        change_KP = problem.need_KCI[:, class_P, other_P] - problem.need_KCI[:, class_P, item]
        there_KP = layout.left_KD[:, there_P] + change_KP
        here_KP = layout.left_KD[:, here, None] + own_KI[:, item, None] - own_KI[:, other_P]
        level_P = np.maximum(
            used_X(there_KP, problem.total_KD[:, there_P]),
            used_X(here_KP, problem.total_KD[:, here, None]),
        )
        has_room_P = (there_KP >= 0).all(0) & (here_KP >= 0).all(0)
        return np.where(has_room_P, level_P, np.inf)

    def _level_with(self, layout: Layout, item: int) -> Floats:
        """The level of each device with one more slice."""
        return used_X(layout.left_KD - self.problem.need_KD(item), self.problem.total_KD)
