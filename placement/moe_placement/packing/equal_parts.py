"""What tenants get that say no share: an equal part of what those that say it leave."""

from collections.abc import Sequence
from dataclasses import replace

from moe_placement.packing.answer import Packing
from moe_placement.packing.interference import DeviceUse, TenantSpeed, device_use, tenant_speeds
from moe_placement.packing.serve_config import ServeTenants
from moe_placement.packing.slices import PackDevice, PackItem


def with_equal_parts(packing: Packing, tenants: ServeTenants) -> tuple[Packing, list[PackItem]]:
    """The same packing with the shares that its tenants then have, and the tenants with them.

    A tenant that spans all ranks has the same share of each: its part where that is least.
    """
    items: dict[str, PackItem] = {item.name: item for item in tenants.items}
    both = [
        (device, [items[name] for name in use.slices])
        for device, use in zip(tenants.devices, packing.devices, strict=True)
    ]
    more = min(_left(device, here) / _num_unsaid(here, tenants, True) for device, here in both)
    spanning = more * tenants.num_spanning_unsaid
    uses: list[DeviceUse] = []
    speeds: dict[str, TenantSpeed] = {}
    for device, here in both:
        part = (_left(device, here) - spanning) / _num_unsaid(here, tenants, False)
        fuller = replace(device, taken_compute=device.taken_compute + spanning)
        now = [
            replace(item, compute=item.compute + part * (item.name in tenants.unsaid))
            for item in here
        ]
        items |= {item.name: item for item in now}
        uses.append(device_use(fuller, now))
        speeds |= {speed.name: speed for speed in tenant_speeds(fuller, now)}
    ordered = tuple(speeds[speed.name] for speed in packing.tenants)
    return replace(packing, devices=tuple(uses), tenants=ordered), list(items.values())


def _left(device: PackDevice, here: Sequence[PackItem]) -> float:
    """What all of them leave, those that say no share having the least."""
    return device.compute - device.taken_compute - sum(item.compute for item in here)


def _num_unsaid(here: Sequence[PackItem], tenants: ServeTenants, with_spanning: bool) -> int:
    """Tenants of one device that say no share, at least 1."""
    unsaid = sum(item.name in tenants.unsaid for item in here)
    return max(1, unsaid + with_spanning * tenants.num_spanning_unsaid)
