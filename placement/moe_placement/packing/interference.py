"""What tenants on one device do to one another, as the packing assumes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_placement.packing.demand import chance_above
from moe_placement.packing.problem import part
from moe_placement.packing.slices import PackDevice, PackItem

ASSUMPTIONS = (
    "tenants of a device take turns, step by step: where all are saturated, one at share s is 1/s "
    "times as slow as alone (more where shares add up to more than the device)",
    "tenants are busy independently of each other, each for the share of time that is its duty; "
    "others are taken to be always busy; idle time is lent in proportion to shares, to hard slices "
    "not at all",
    "who has the turn has the whole memory bandwidth; at once with others (isolate: sm) memory-"
    "bound work slows by what all want over what the device has, where that is above 1",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSpeed:
    """How many times as slow as alone on the device one tenant is.

    Attributes:
        saturated: while others take all that its share leaves; None for a slice without a share.
        expected: in the mean over when the others are busy.
    """

    name: str
    device: str
    saturated: float | None
    expected: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What one device gives, in shares of what it has; with what others take of it.

    Attributes:
        slices: the names of those here.
        compute: guaranteed; above 1 only with overcommitment.
        memory: guaranteed.
        bandwidth: declared; see `num_undeclared`.
        busy: expected share of the time, tenants being busy as their duties say.
        busy_bandwidth: expected, of what was declared.
        compute_excess: the chance that who is busy wants more than there is; a hard slice counts
            as always busy, for its time is kept for it.
        bandwidth_excess: the same of memory bandwidth.
        contention: how many times as slow memory-bound work is while all are busy.
        num_undeclared: slices that say nothing of their bandwidth and count as none here.
    """

    name: str
    slices: tuple[str, ...]
    compute: float
    memory: float
    bandwidth: float
    busy: float
    busy_bandwidth: float
    compute_excess: float
    bandwidth_excess: float
    contention: float
    num_undeclared: int


def device_use(device: PackDevice, items: Sequence[PackItem]) -> DeviceUse:
    """What the slices on one device make of it."""
    computes = [(item.compute / device.compute, item) for item in items if device.compute]
    bandwidths = [(bandwidth_share(item, device), item) for item in items]
    taken_compute = device.taken_compute / device.compute if device.compute else 1.0
    taken_bandwidth = part(device.taken_bandwidth, device.bandwidth)
    bandwidth = taken_bandwidth + sum(share for share, _ in bandwidths)
    memory = device.taken_memory + sum(item.memory for item in items)
    return DeviceUse(
        name=device.name,
        slices=tuple(item.name for item in items),
        compute=taken_compute + sum(share for share, _ in computes),
        memory=memory / device.memory if device.memory else 1.0,
        bandwidth=bandwidth,
        busy=taken_compute + sum(share * item.duty for share, item in computes),
        busy_bandwidth=taken_bandwidth + sum(share * item.duty for share, item in bandwidths),
        compute_excess=_excess(taken_compute, computes),
        bandwidth_excess=_excess(taken_bandwidth, bandwidths),
        contention=max(1.0, bandwidth),
        num_undeclared=sum(share == 0 for share, _ in bandwidths),
    )


def tenant_speeds(device: PackDevice, items: Sequence[PackItem]) -> list[TenantSpeed]:
    """How the tenants of one device slow each other down."""
    guaranteed = device.taken_compute + sum(item.compute for item in items)
    wanted = device.taken_compute + sum(item.compute * item.duty for item in items)
    full = max(device.compute, guaranteed)
    return [
        TenantSpeed(
            name=item.name,
            device=device.name,
            saturated=full / item.compute if item.compute else None,
            expected=_expected(item, full, wanted) if item.compute else None,
        )
        for item in items
    ]


def bandwidth_share(item: PackItem, device: PackDevice) -> float:
    """What a slice declares, of one device's bandwidth."""
    return item.bandwidth_share + part(item.bandwidth, device.bandwidth)


def _expected(item: PackItem, full: float, wanted: float) -> float:
    """With idle time lent in proportion, a tenant at share s is slowed by 1 + x / s, where x is
    the sum of the shares of the others that are busy: linear in x, so its mean is that of x."""
    if item.hard or item.at_once:
        return full / item.compute
    others = wanted - item.compute * item.duty
    return min(1 + others / item.compute, full / item.compute)


def _excess(taken: float, shares: Sequence[tuple[float, PackItem]]) -> float:
    return chance_above(
        1.0 - taken, [(share, 1.0 if item.hard else item.duty) for share, item in shares]
    )
