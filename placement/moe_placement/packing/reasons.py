"""Why a slice was left out: what is short where it would fit best, with both figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_placement.memory.report import format_bytes
from moe_placement.packing.layout import Layout
from moe_placement.packing.problem import DIMENSIONS, SHARE_UNITS, Ints
from moe_placement.packing.slices import PackDevice, PackItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """One dimension in which a device has too little: bytes of memory, shares of the others."""

    dimension: str
    needed: float
    left: float

    @property
    def missing(self) -> float:
        return self.needed - self.left

    def __str__(self) -> str:
        needed, left, missing = map(self._figure, (self.needed, self.left, self.missing))
        return f"{self.dimension} {needed} is asked for, {left} is left ({missing} short)"

    def _figure(self, amount: float) -> str:
        return format_bytes(int(amount)) if self.dimension == "memory" else f"{100 * amount:.4g}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """A slice that is on no device.

    Attributes:
        device: the allowed device that lacks the least for it; empty where none is allowed.
        is_too_large: it would not fit any device that it may be on even if all slices were gone.
        shortages: what is short there; none where all that have room hold another one that it
            must be apart from.
    """

    name: str
    device: str
    is_too_large: bool
    shortages: tuple[Shortage, ...]

    def __str__(self) -> str:
        if not self.device:
            return f"{self.name}: there is no device that it may be on; allow one"
        if not self.shortages:
            return (
                f"{self.name}: every device with room holds another that it must be apart from; "
                "add a device"
            )
        short = ", ".join(map(str, self.shortages))
        if self.is_too_large:
            return (
                f"{self.name}: too large for any device, even {self.device} without slices: {short}"
            )
        return f"{self.name}: {self.device} comes nearest: {short}"


def unplaced_of(
    layout: Layout, items: Sequence[PackItem], devices: Sequence[PackDevice]
) -> tuple[Unplaced, ...]:
    """Each slice that a packing leaves out, and why."""
    return tuple(_reason(layout, items, devices, number) for number in layout.unplaced)


def _reason(
    layout: Layout, items: Sequence[PackItem], devices: Sequence[PackDevice], number: int
) -> Unplaced:
    problem, name = layout.problem, items[number].name
    may_X = np.flatnonzero(problem.may_ID[number])
    if not len(may_X):
        return Unplaced(name=name, device="", is_too_large=True, shortages=())
    need_KX = problem.need_KCI[:, problem.class_D[may_X], number]
    total_KX = np.maximum(problem.total_KD[:, may_X], 1)
    free_KX = problem.free_KD[:, may_X]
    is_too_large = bool((need_KX > free_KX).any(0).all())
    left_KX = free_KX if is_too_large else layout.left_KD[:, may_X]
    missing_X = (np.maximum(need_KX - left_KX, 0) / total_KX).sum(0)
    best = int(np.argmin(missing_X))
    return Unplaced(
        name=name,
        device=devices[int(may_X[best])].name,
        is_too_large=is_too_large,
        shortages=_shortages(need_KX[:, best], left_KX[:, best]),
    )


def _shortages(need_K: Ints, left_K: Ints) -> tuple[Shortage, ...]:
    found = []
    for dimension, needed, left in zip(DIMENSIONS, need_K.tolist(), left_K.tolist(), strict=True):
        unit = 1 if dimension == "memory" else SHARE_UNITS
        if needed > left:
            found.append(Shortage(dimension=dimension, needed=needed / unit, left=left / unit))
    return tuple(found)
