"""A packing as it is handed out: who sits where, why not all do, and how near it is to the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from moe_placement.packing.interference import DeviceUse, TenantSpeed, device_use, tenant_speeds
from moe_placement.packing.layout import NOWHERE, Layout
from moe_placement.packing.level import level
from moe_placement.packing.reasons import Unplaced, unplaced_of
from moe_placement.packing.slices import PackDevice, PackItem

Objective = Literal["fewest", "even"]
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Attributes:
    device_of: the device of each slice that has one, by name.
    least_unplaced: no packing leaves out fewer slices.
    opened: devices that hold slices and would be empty otherwise.
    least_opened: no packing of the slices that have a device opens fewer.
    level: the largest share counted as used, in any dimension, of a device that holds slices.
    least_level: no packing of these slices has a lower one; 0 where evenness was not asked for.
    """

    objective: Objective
    overcommit: float
    device_of: Mapping[str, str]
    unplaced: tuple[Unplaced, ...]
    least_unplaced: int
    opened: int
    least_opened: int
    level: float
    least_level: float
    devices: tuple[DeviceUse, ...]
    tenants: tuple[TenantSpeed, ...]

    @property
    def placed_gap(self) -> float:
        """How many more slices might be placed, as a share of those that are."""
        placed = len(self.device_of)
        return _above(placed + len(self.unplaced) - self.least_unplaced, placed)

    @property
    def gap(self) -> float:
        """How far devices opened, or the level, are from the bound, as a share of it."""
        if self.objective == "fewest":
            return _above(self.opened, self.least_opened)
        return _above(self.level, self.least_level)

    @property
    def is_best(self) -> bool:
        """Whether no packing is better, proven."""
        return self.placed_gap <= _ROUNDING and self.gap <= _ROUNDING


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Attributes:
    least_unplaced: as in `Packing`, as are the others.
    """

    layout: Layout
    least_unplaced: int = 0
    least_opened: int = 0
    least_level: float = 0.0


def packing_of(
    found: Found,
    items: Sequence[PackItem],
    devices: Sequence[PackDevice],
    objective: Objective,
    overcommit: float,
) -> Packing:
    """What was found, told of slices and devices by name."""
    layout = found.layout
    held: list[list[PackItem]] = [[] for _ in devices]
    for item, device in zip(items, layout.device_I.tolist(), strict=True):
        if device != NOWHERE:
            held[device].append(item)
    both = list(zip(devices, held, strict=True))
    speeds = {speed.name: speed for one, here in both for speed in tenant_speeds(one, here)}
    tenants = tuple(speeds[item.name] for item in items if item.name in speeds)
    return Packing(
        objective=objective,
        overcommit=overcommit,
        device_of={speed.name: speed.device for speed in tenants},
        unplaced=unplaced_of(layout, items, devices),
        least_unplaced=found.least_unplaced,
        opened=layout.num_opened,
        least_opened=found.least_opened,
        level=level(layout),
        least_level=found.least_level,
        devices=tuple(device_use(one, here) for one, here in both),
        tenants=tenants,
    )


def _above(found: float, bound: float) -> float:
    if found <= bound:
        return 0.0
    return found / bound - 1 if bound else float("inf")
