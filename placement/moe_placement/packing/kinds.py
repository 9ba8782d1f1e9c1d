"""Like slices and like devices, counted: what bounds and exact programs are about.

Shapes: T kinds of slices, G kinds of devices, K dimensions, X groups of slices that stay apart.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from moe_placement.packing.problem import Flags, Ints, Problem

# Slices of a kind in the mean.
_MANY_ALIKE = 3


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Attributes:
    items_T: the slices of each kind, in their order.
    devices_G: the devices of each kind, in their order.
    need_GTK: what a slice needs on a device.
    free_GK: what a device has for slices.
    may_TG: whether a slice may be on a device and fits it when it is empty.
    apart_T: number of the group that a slice must be apart from; -1 for none.
    opens_G: whether a slice there opens a device.
    """

    items_T: tuple[tuple[int, ...], ...]
    devices_G: tuple[tuple[int, ...], ...]
    need_GTK: Ints
    free_GK: Ints
    may_TG: Flags
    apart_T: Ints
    opens_G: Flags

    @classmethod
    def of(cls, problem: Problem) -> "Kinds":
        items_T = _alike(
            (problem.need_KCI[:, :, i].tobytes(), problem.may_ID[i].tobytes(), problem.apart_I[i])
            for i in range(problem.num_items)
        )
        first_T = np.array([items[0] for items in items_T], np.int64)
        devices_G = _alike(
            (
                problem.class_D[d],
                problem.opens_D[d],
                problem.free_KD[:, d].tobytes(),
                problem.may_ID[first_T, d].tobytes(),
            )
            for d in range(problem.num_devices)
        )
        first_G = np.array([devices[0] for devices in devices_G], np.int64)
        need_GTK = problem.need_KCI[:, problem.class_D[first_G][:, None], first_T].transpose(
            1, 2, 0
        )
        free_GK = problem.free_KD[:, first_G].T
        fits_TG = (need_GTK <= free_GK[:, None]).all(2).T
        return cls(
            items_T=items_T,
            devices_G=devices_G,
            need_GTK=need_GTK,
            free_GK=free_GK,
            may_TG=fits_TG & problem.may_ID[np.ix_(first_T, first_G)],
            apart_T=problem.apart_I[first_T],
            opens_G=problem.opens_D[first_G],
        )

    @property
    def num_T(self) -> Ints:
        return np.array([len(items) for items in self.items_T], np.int64)

    @property
    def num_G(self) -> Ints:
        return np.array([len(devices) for devices in self.devices_G], np.int64)

    @property
    def num_devices(self) -> int:
        return int(self.num_G.sum())

    @property
    def is_repetitive(self) -> bool:
        """Whether most slices have others like them: then it pays to count kinds."""
        return int(self.num_T.sum()) >= _MANY_ALIKE * len(self.items_T)

    def most_TG(self) -> Ints:
        """The most slices of a kind that one device holds."""
        with np.errstate(divide="ignore"):
            by_GTK = np.where(
                self.need_GTK > 0, self.free_GK[:, None] // np.maximum(self.need_GTK, 1), 2**31
            )
        most_TG = np.minimum(by_GTK.min(2).T, self.num_T[:, None]) * self.may_TG
        apart_T1 = self.apart_T[:, None] >= 0
        most: Ints = np.where(apart_T1, np.minimum(most_TG, 1), most_TG)
        return most

    def apart_XT(self) -> Flags:
        """Which kinds belong to each group of slices that stay apart."""
        groups = sorted(set(self.apart_T.tolist()) - {-1})
        is_in_XT: Flags = self.apart_T == np.array(groups, np.int64).reshape(-1, 1)
        return is_in_XT

    def in_units(self, kind: int) -> tuple[Ints, Ints]:
        """What slices need on a kind of device, and what it has, in the largest units that are
        exact: the smaller the numbers, the nearer is a solver's tolerance to none."""
        both_XK = np.vstack([self.need_GTK[kind], self.free_GK[kind]])
        in_units_XK = both_XK // np.maximum(np.gcd.reduce(both_XK, axis=0), 1)
        return in_units_XK[:-1], in_units_XK[-1]


def _alike(keys: Iterable[Hashable]) -> tuple[tuple[int, ...], ...]:
    found: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, []).append(number)
    return tuple(map(tuple, found.values()))
