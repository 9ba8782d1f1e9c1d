"""A packing as tables and as plain values: who sits where, how full devices get, what is short."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moe_placement.memory.report import format_bytes
from moe_placement.packing.answer import Packing
from moe_placement.packing.interference import ASSUMPTIONS, DeviceUse
from moe_placement.packing.reasons import Unplaced
from moe_placement.packing.slices import PackItem
from moe_placement.report.table import Table


def packing_summary(packing: Packing, num_devices: int) -> tuple[tuple[str, str], ...]:
    """Label and text of what matters most."""
    num_placed = len(packing.device_of)
    num_slices = num_placed + len(packing.unplaced)
    holding = sum(bool(device.slices) for device in packing.devices)
    most = num_slices - packing.least_unplaced
    rows = [
        ("slices", f"{num_placed} of {num_slices} placed; at most {most} could be"),
        ("devices", f"{holding} of {num_devices} hold slices"),
    ]
    if packing.objective == "fewest":
        text = f"{packing.opened}; these slices need at least {packing.least_opened}"
        rows.append(("devices opened", f"{text} (gap {packing.gap:.1%})"))
    else:
        text = f"{packing.level:.1%} of the fullest device; at least {packing.least_level:.1%}"
        rows.append(("level", f"{text} (gap {packing.gap:.1%})"))
    if packing.overcommit > 1:
        rows.append(("overcommit", f"{packing.overcommit:g} times, of bursty slices"))
    return tuple(rows)


def packed_devices_table(packing: Packing) -> Table:
    """Devices that hold slices."""
    return Table(
        "Devices, with what others take of them",
        (
            *("device", "slices", "compute", "memory", "bandwidth", "busy", "bandwidth busy"),
            *("excess", "bandwidth excess", "contention"),
        ),
        tuple(_device(device) for device in packing.devices if device.slices),
        _undeclared(packing.devices),
    )


def packed_slices_table(packing: Packing, items: Sequence[PackItem]) -> Table:
    """Who sits where."""
    speeds = {speed.name: speed for speed in packing.tenants}
    rows = []
    for item in items:
        if item.name in speeds:
            speed = speeds[item.name]
            rows.append(
                (
                    item.name,
                    speed.device,
                    "hard" if item.hard else "share",
                    f"{item.compute:.2%}",
                    format_bytes(item.memory),
                    f"{item.duty:.0%}",
                    _times(speed.saturated),
                    _times(speed.expected),
                )
            )
    header = ("slice", "device", "mode", "compute", "memory", "duty", "saturated", "expected")
    note = "saturated, expected: how many times as slow as alone on the device"
    return Table("Who sits where", header, tuple(rows), note, num_names=3)


def unplaced_table(unplaced: Sequence[Unplaced]) -> Table:
    """What has no device, and why."""
    rows = tuple((one.name, str(one).removeprefix(f"{one.name}: ")) for one in unplaced)
    return Table("What does not fit", ("slice", "why"), rows, num_names=2)


def packing_values(packing: Packing) -> dict[str, Any]:
    """One object; shares of a device, bytes."""
    plain = asdict(packing)
    for one, values in zip(packing.unplaced, plain["unplaced"], strict=True):
        values["why"] = str(one)
    return plain | {
        "gap": packing.gap,
        "placed_gap": packing.placed_gap,
        "is_best": packing.is_best,
        "assumptions": ASSUMPTIONS,
    }


def _device(device: DeviceUse) -> tuple[str, ...]:
    shares = (device.compute, device.memory, device.bandwidth, device.busy, device.busy_bandwidth)
    return (
        device.name,
        str(len(device.slices)),
        *(f"{share:.1%}" for share in shares),
        f"{device.compute_excess:.2g}",
        f"{device.bandwidth_excess:.2g}",
        f"{device.contention:.2f}",
    )


def _undeclared(devices: Sequence[DeviceUse]) -> str:
    note = (
        "excess: the chance, by convolution, that slices which are busy want more than there is; "
        "contention: how many times as slow memory-bound work is while all are busy"
    )
    silent = sum(device.num_undeclared for device in devices)
    return note + (f"; {silent} of the slices say no bandwidth and count as none" if silent else "")


def _times(factor: float | None) -> str:
    return "no share" if factor is None else f"{factor:.2f}"
