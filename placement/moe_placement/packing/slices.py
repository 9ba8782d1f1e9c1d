"""What is packed, and onto what: slices of devices with their needs, devices with what is taken."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

# Sums of a thousand such are still whole 64-bit numbers.
_MOST_BYTES = 1 << 53


class PackError(ValueError):
    """Slices or devices that cannot be right: names whose, the figure and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackItem:
    """One slice: what a tenant has to itself on whichever device it is put.

    Attributes:
        compute: share of a device's time (1 is all of it), or of its processors where `at_once`.
        memory: bytes.
        bandwidth: bytes/s of the device's memory.
        bandwidth_share: of the device's memory bandwidth, whatever that is; added to `bandwidth`.
        allowed: names of the devices that it may be on; None is any.
        hard: it never gets more than its share, and no device ever counts on its being idle.
        duty: share of time in which it wants its device, between bursts it is idle.
        apart: no device holds two slices of one such name (replicas of a model); empty is none.
        at_once: it runs beside the others on processors of its own, not in turns with them.
    """

    name: str
    compute: float = 0.0
    memory: int = 0
    bandwidth: float = 0.0
    bandwidth_share: float = 0.0
    allowed: tuple[str, ...] | None = None
    hard: bool = False
    duty: float = 1.0
    apart: str = ""
    at_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PackDevice:
    """One device, and what others take of it.

    Attributes:
        compute: what it has, in the unit of the slices' shares: 1 is one device, 0.5 one that is
            worth half of what the shares are meant of.
        memory: bytes that tenants may use.
        bandwidth: bytes/s of its memory; 0 is not known, and not limited.
        taken_compute: by others, as a big model whose experts are here.
        taken_memory: bytes.
        taken_bandwidth: bytes/s.
    """

    name: str
    memory: int
    compute: float = 1.0
    bandwidth: float = 0.0
    taken_compute: float = 0.0
    taken_memory: int = 0
    taken_bandwidth: float = 0.0

    @property
    def in_use(self) -> bool:
        """Whether others are on it, so that a slice here opens no further device."""
        return max(self.taken_compute, self.taken_memory, self.taken_bandwidth) > 0


def check(items: Sequence[PackItem], devices: Sequence[PackDevice]) -> None:
    """Refuse figures that cannot be right.

    Raises:
        PackError: a name given twice, a figure that is negative or no number, a duty that is not
            within 0..1, more taken than there is, or a device allowed that is not there.
    """
    _check_names("slice", items)
    _check_names("device", devices)
    known = {device.name for device in devices}
    for item in items:
        _check_figures("slice", item)
        if not 0 < item.duty <= 1:
            raise PackError(
                f"slice {item.name!r} has duty {item.duty:g}; it is a share of time, above 0 and "
                "at most 1"
            )
        for name in item.allowed or ():
            if name not in known:
                raise PackError(f"slice {item.name!r} may be on {name!r}, which is no device here")
    for device in devices:
        _check_figures("device", device)
        _check_taken(device)


def _check_names(what: str, named: Iterable[PackItem | PackDevice]) -> None:
    for name, times in Counter(one.name for one in named).items():
        if times > 1:
            raise PackError(f"{times} {what}s are named {name!r}; give each its own name")


def _check_figures(what: str, one: PackItem | PackDevice) -> None:
    for field in fields(one):
        value = getattr(one, field.name)
        if isinstance(value, int | float) and not (math.isfinite(value) and value >= 0):
            raise PackError(f"{what} {one.name!r} has {field.name} {value}; it must be at least 0")
    if one.memory > _MOST_BYTES:
        raise PackError(
            f"{what} {one.name!r} has memory {one.memory}; it must be at most {_MOST_BYTES} bytes"
        )


def _check_taken(device: PackDevice) -> None:
    for name in ("compute", "memory", "bandwidth"):
        taken, there = getattr(device, f"taken_{name}"), getattr(device, name)
        if taken > there and not (name == "bandwidth" and there == 0):
            raise PackError(
                f"device {device.name!r} has {name} {there:g}, and {taken:g} of it are taken; "
                "take less"
            )
