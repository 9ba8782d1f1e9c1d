"""Slices and devices as whole numbers, so that what is added up is exact.

Shapes: I slices, D devices, C classes of devices on which every slice needs the same, K
dimensions, X some slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moe_placement.packing.slices import PackDevice, PackItem

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

DIMENSIONS = ("compute", "memory", "bandwidth")
# Shares are counted in billionths, rounded down: seven slices of a seventh each fill a device.
SHARE_UNITS = 10**9
_ROUNDING = 1e-4
# Of a share: more than any device has, and sums of a thousand such are still 64-bit numbers.
_MOST_UNITS = 1 << 53


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Compute and bandwidth in billionths of a device, memory in bytes.

    Attributes:
        need_KCI: what a slice counts for on a device of a class.
        total_KD: what a device has.
        free_KD: what others leave of it.
        may_ID: whether a slice may be on a device, needs aside.
        apart_I: number of the group that it must be apart from; -1 for none.
        opens_D: whether a slice there opens a device that would stay empty otherwise.
    """

    need_KCI: Ints
    class_D: Ints
    total_KD: Ints
    free_KD: Ints
    may_ID: Flags
    apart_I: Ints
    opens_D: Flags

    @property
    def num_items(self) -> int:
        return len(self.apart_I)

    @property
    def num_devices(self) -> int:
        return len(self.class_D)

    @property
    def num_groups(self) -> int:
        return int(self.apart_I.max(initial=-1)) + 1

    @property
    def mean_need_KI(self) -> Floats:
        """What each slice needs on the mean device."""
        num_of_class_C = np.bincount(self.class_D, minlength=self.need_KCI.shape[1])
        mean_KI: Floats = np.average(self.need_KCI, axis=1, weights=num_of_class_C)
        return mean_KI

    def only(self, item_X: Ints) -> "Problem":
        """The same devices with some of the slices."""
        return replace(
            self,
            need_KCI=self.need_KCI[:, :, item_X],
            may_ID=self.may_ID[item_X],
            apart_I=self.apart_I[item_X],
        )

    def need_KD(self, item: int) -> Ints:
        """What one slice needs on each device; one column where all need the same."""
        if self.need_KCI.shape[1] == 1:
            return self.need_KCI[:, :, item]
        return self.need_KCI[:, self.class_D, item]

    def need_KI(self, device: int) -> Ints:
        """What each slice needs on one device."""
        return self.need_KCI[:, self.class_D[device]]


def problem_of(
    items: Sequence[PackItem], devices: Sequence[PackDevice], overcommit: float = 1.0
) -> Problem:
    """The problem in numbers; items and devices keep their order.

    Args:
        overcommit: see `counted`.
    """
    rates = sorted({device.bandwidth for device in devices})
    groups = {name: n for n, name in enumerate(sorted({i.apart for i in items if i.apart}))}
    needs = [[_need(item, rate, overcommit) for item in items] for rate in rates]
    need_CIK = np.array(needs, np.int64).reshape(len(rates), len(items), len(DIMENSIONS))
    total_KD = _table([_amounts(device.compute, device.memory, 1.0) for device in devices])
    taken_KD = _table(
        [
            _amounts(d.taken_compute, d.taken_memory, part(d.taken_bandwidth, d.bandwidth))
            for d in devices
        ]
    )
    return Problem(
        need_KCI=np.ascontiguousarray(need_CIK.transpose(2, 0, 1)),
        class_D=np.array([rates.index(device.bandwidth) for device in devices], np.int64),
        total_KD=total_KD,
        free_KD=total_KD - taken_KD,
        may_ID=_may(items, devices),
        apart_I=np.array([groups.get(item.apart, -1) for item in items], np.int64),
        opens_D=np.array([not device.in_use for device in devices], np.bool_),
    )


def counted(share: float, item: PackItem, overcommit: float) -> float:
    """What a slice's share of compute or bandwidth counts for when a device is filled.

    All of it, but for a bursty slice that is not hard: that counts `1 / overcommit` of it, never
    less than what it uses in the mean.
    """
    return share if item.hard else max(share / overcommit, share * item.duty)


def part(num_bytes: float, rate: float) -> float:
    """Bytes/s as a share of a device's; of a rate that is not known it is none."""
    return num_bytes / rate if rate else 0.0


def _need(item: PackItem, rate: float, overcommit: float) -> tuple[int, int, int]:
    bandwidth = item.bandwidth_share + part(item.bandwidth, rate)
    shares = (counted(share, item, overcommit) for share in (item.compute, bandwidth))
    compute, bandwidth = shares
    return _amounts(compute, item.memory, bandwidth)


def _amounts(compute: float, memory: int, bandwidth: float) -> tuple[int, int, int]:
    units = (
        int(min(share * SHARE_UNITS + _ROUNDING, _MOST_UNITS)) for share in (compute, bandwidth)
    )
    return next(units), memory, next(units)


def _table(rows: Sequence[tuple[int, int, int]]) -> Ints:
    table_DK = np.array(rows, np.int64).reshape(len(rows), len(DIMENSIONS))
    return np.ascontiguousarray(table_DK.T)


def _may(items: Sequence[PackItem], devices: Sequence[PackDevice]) -> Flags:
    names = np.array([device.name for device in devices])
    may_ID = np.ones((len(items), len(devices)), np.bool_)
    for number, item in enumerate(items):
        if item.allowed is not None:
            may_ID[number] = np.isin(names, item.allowed)
    return may_ID
