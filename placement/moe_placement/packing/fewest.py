"""The packing that leaves out the fewest slices, and of those the one that opens fewest devices.

Greedy seeds and guided ejection; where they miss the bound, patterns if there are few kinds of
slices, and an exact program if there are few slices.

Shapes: I slices, D devices.
"""

from dataclasses import dataclass, field

import numpy as np

from moe_placement.packing import exact, patterns
from moe_placement.packing.answer import Found
from moe_placement.packing.bound import PackBound, bound_of, relaxed_bound
from moe_placement.packing.ejection import Ejection
from moe_placement.packing.kinds import Kinds
from moe_placement.packing.layout import Layout
from moe_placement.packing.problem import Problem
from moe_placement.packing.seeds import Seeds

# Work of the local search, in slices and devices looked at.
_WORK = 10_000_000
_MOST_STEPS = 8_000
# Devices that are tried in turn for one that can be emptied.
_TRIED = 4


@dataclass(slots=True, eq=False)
class FewestSearch:
    """Attributes:
    time_limit: seconds for each integer program; 0 does without them.
    start: a packing that is known, if any.
    best: the best packing so far.
    bound: what none beats.
    """

    seeds: Seeds
    time_limit: float
    seed: int = 0
    start: Layout | None = None
    kinds: Kinds = field(init=False)
    best: Layout = field(init=False)
    bound: PackBound = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = Kinds.of(self.problem)
        self.bound = relaxed_bound(self.kinds)
        known = [] if self.start is None else [self.start]
        self.best = min([*known, *self.seeds.layouts()], key=cost)

    @property
    def problem(self) -> Problem:
        return self.seeds.problem

    def run(self) -> None:
        """Improve on the seeds until the bound is met or every way was tried."""
        programs = self.time_limit > 0
        ways = [
            (programs and patterns.few_enough(self.kinds), self._by_patterns),
            (True, self._by_ejection),
            (programs and exact.few_enough(self.kinds), self._by_proof),
        ]
        if not self.kinds.is_repetitive:
            ways[0], ways[1] = ways[1], ways[0]
        for is_worth, way in ways:
            if is_worth and not self.is_best:
                way()

    @property
    def is_best(self) -> bool:
        unplaced, opened = cost(self.best)
        return unplaced <= self.bound.unplaced and (unplaced > 0 or opened <= self.bound.opened)

    def _by_ejection(self) -> None:
        size = self.problem.num_items + self.problem.num_devices
        steps = min(_MOST_STEPS, _WORK // size)
        search = Ejection(self.seeds, steps, np.random.default_rng(self.seed))
        if len(self.best.unplaced) > self.bound.unplaced:
            every_D = np.ones(self.problem.num_devices, np.bool_)
            self._keep(search.place(self.best.copy(), every_D))
        while not self.best.unplaced and not self.is_best and self._empty_one(search):
            pass

    def _empty_one(self, search: Ejection) -> bool:
        """Find room elsewhere for all slices of one device, the least filled first."""
        opened = np.flatnonzero((self.best.count_D > 0) & self.problem.opens_D)
        fill = self.best.used_KD[:, opened].sum(0)
        for device in opened[np.argsort(fill, kind="stable")[:_TRIED]].tolist():
            among_D = self.best.is_open_D
            among_D[device] = False
            layout = self.best.copy()
            for item in np.flatnonzero(layout.device_I == device).tolist():
                layout.take(item)
            if self._keep(search.place(layout, among_D)):
                return True
        return False

    def _by_patterns(self) -> None:
        found = patterns.Patterns(self.kinds, self.time_limit)
        found.add_layout(self.best)
        found.improve()
        self.bound = self.bound.joined(found.bound)
        if not self.is_best:
            found.vary(np.random.default_rng(self.seed))
            self._keep(found.layout(self.problem))

    def _by_proof(self) -> None:
        found = exact.ExactProgram(self.problem, self.kinds, self.time_limit).fewest()
        if found is not None:
            self.bound = self.bound.joined(bound_of(found[1].bound, self.problem.num_devices))
            self._keep(found[0])

    def _keep(self, layout: Layout | None) -> bool:
        if layout is None or cost(layout) >= cost(self.best):
            return False
        self.best = layout
        return True


def fewest_devices(problem: Problem, time_limit: float, seed: int) -> Found:
    """Place as many slices as possible, then those on as few further devices as possible."""
    search = FewestSearch(Seeds(problem), time_limit, seed)
    search.run()
    if not search.best.unplaced:
        return Found(search.best, search.bound.unplaced, search.bound.opened)
    start, item_X = search.best.only_placed()
    if not len(item_X):
        return Found(search.best, search.bound.unplaced)
    again = FewestSearch(Seeds(start.problem), time_limit, seed, start)
    again.run()
    layout = again.best.within(problem, item_X)
    return Found(layout, search.bound.unplaced, again.bound.opened)


def cost(layout: Layout) -> tuple[int, int]:
    """Slices left out, then devices opened."""
    return len(layout.unplaced), layout.num_opened
