"""Who is where while a packing is looked for, and what every device has left.

Shapes: I slices, D devices, K dimensions, G groups of slices that stay apart, X some slices.
"""

from dataclasses import dataclass

import numpy as np

from moe_placement.packing.problem import Flags, Floats, Ints, Problem

NOWHERE = -1


@dataclass(slots=True, eq=False)
class Layout:
    """Attributes:
    device_I: device of each slice, NOWHERE for one that is on none.
    left_KD: what is left of each device.
    held_GD: slices of each group on each device.
    count_D: slices on each device.
    """

    problem: Problem
    device_I: Ints
    left_KD: Ints
    held_GD: Ints
    count_D: Ints

    @classmethod
    def empty(cls, problem: Problem) -> "Layout":
        return cls(
            problem=problem,
            device_I=np.full(problem.num_items, NOWHERE),
            left_KD=problem.free_KD.copy(),
            held_GD=np.zeros((problem.num_groups, problem.num_devices), np.int64),
            count_D=np.zeros(problem.num_devices, np.int64),
        )

    @classmethod
    def of(cls, problem: Problem, device_I: Ints) -> "Layout":
        """A layout in which every slice is where it is said to be, sound or not."""
        layout = cls.empty(problem)
        for item in np.flatnonzero(device_I != NOWHERE).tolist():
            layout.put(item, int(device_I[item]))
        return layout

    def within(self, problem: Problem, item_X: Ints) -> "Layout":
        """The same of a problem with more slices; `item_X` says which these are there."""
        device_I = np.full(problem.num_items, NOWHERE)
        device_I[item_X] = self.device_I
        return Layout.of(problem, device_I)

    def only_placed(self) -> "tuple[Layout, Ints]":
        """The same of a problem with only the slices that have a place, and which these are."""
        item_X = np.flatnonzero(self.device_I != NOWHERE)
        return Layout.of(self.problem.only(item_X), self.device_I[item_X]), item_X

    def copy(self) -> "Layout":
        arrays = (self.device_I, self.left_KD, self.held_GD, self.count_D)
        return Layout(self.problem, *(array.copy() for array in arrays))

    def put(self, item: int, device: int) -> None:
        self._change(item, device, 1)
        self.device_I[item] = device

    def take(self, item: int) -> int:
        """Remove a slice from its device; which that was."""
        device = int(self.device_I[item])
        self._change(item, device, -1)
        self.device_I[item] = NOWHERE
        return device

    def _change(self, item: int, device: int, sign: int) -> None:
        problem = self.problem
        self.left_KD[:, device] -= sign * problem.need_KCI[:, problem.class_D[device], item]
        self.count_D[device] += sign
        if problem.apart_I[item] >= 0:
            self.held_GD[problem.apart_I[item], device] += sign

    def fits_D(self, item: int) -> Flags:
        """The devices that have room for a slice and may hold it."""
        problem = self.problem
        fits_D: Flags = (self.left_KD >= problem.need_KD(item)).all(0) & problem.may_ID[item]
        if problem.apart_I[item] >= 0:
            fits_D &= self.held_GD[problem.apart_I[item]] == 0
        return fits_D

    def fits_XD(self, item_X: Ints) -> Flags:
        """The same of several slices."""
        problem = self.problem
        fits_XD = problem.may_ID[item_X]
        for left_D, need_CI in zip(self.left_KD, problem.need_KCI, strict=True):
            need_XC = need_CI[:, item_X].T
            fits_XD &= left_D >= (need_XC if need_XC.shape[1] == 1 else need_XC[:, problem.class_D])
        if problem.num_groups:
            group_X = problem.apart_I[item_X]
            fits_XD &= (group_X[:, None] < 0) | (self.held_GD[group_X] == 0)
        return fits_XD

    @property
    def is_sound(self) -> bool:
        """Whether no device holds more than it has, and who must be apart is."""
        return bool((self.left_KD >= 0).all() and (self.held_GD <= 1).all())

    @property
    def is_open_D(self) -> Flags:
        """Devices that hold a slice, or are in use by others anyhow."""
        return (self.count_D > 0) | ~self.problem.opens_D

    @property
    def num_opened(self) -> int:
        return int((self.count_D[self.problem.opens_D] > 0).sum())

    @property
    def unplaced(self) -> list[int]:
        found: list[int] = np.flatnonzero(self.device_I == NOWHERE).tolist()
        return found

    @property
    def used_KD(self) -> Floats:
        """Share of each device that is used or taken; all of what a device has nothing of."""
        used: Floats = 1 - self.left_KD / np.maximum(self.problem.total_KD, 1)
        return used
