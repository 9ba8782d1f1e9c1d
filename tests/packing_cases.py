"""Packing problems for tests, made by hypothesis or a generator, and solved by trying all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from moe_placement.packing.slices import PackDevice, PackItem

GB = 10**9


@dataclass(frozen=True)
class Optimum:
    """The best there is: slices left out, then devices opened, then the level of the fullest."""

    unplaced: int
    opened: int
    level: float


def percents(most: int) -> st.SearchStrategy[int]:
    return st.integers(0, most)


@st.composite
def items(draw: st.DrawFn, names: Sequence[str], number: int) -> PackItem:
    allowed = draw(st.none() | st.sets(st.sampled_from(names)).map(sorted)) if names else None
    return PackItem(
        name=f"slice{number}",
        compute=draw(percents(80)) / 100,
        memory=draw(percents(80)) * GB,
        bandwidth=draw(percents(50)) * GB,
        bandwidth_share=draw(percents(30)) / 100,
        allowed=None if allowed is None else tuple(allowed),
        hard=draw(st.booleans()),
        duty=draw(st.sampled_from((0.2, 0.5, 1.0))),
        apart=draw(st.sampled_from(("", "", "left", "right"))),
    )


@st.composite
def devices(draw: st.DrawFn, number: int) -> PackDevice:
    device = PackDevice(
        name=f"device{number}",
        compute=draw(st.sampled_from((1.0, 1.0, 0.5))),
        memory=draw(st.sampled_from((40, 80, 100))) * GB,
        bandwidth=draw(st.sampled_from((0, 100, 200))) * GB,
    )
    if draw(st.booleans()):
        return device
    return replace(
        device,
        taken_compute=draw(percents(50)) / 100,
        taken_memory=draw(percents(40)) * GB,
        taken_bandwidth=draw(percents(50)) * GB,
    )


@st.composite
def problems(
    draw: st.DrawFn, max_items: int = 5, max_devices: int = 3
) -> tuple[list[PackItem], list[PackDevice]]:
    """Few unlike slices on few unlike devices, of either perhaps none."""
    there = [draw(devices(number)) for number in range(draw(st.integers(0, max_devices)))]
    names = [device.name for device in there]
    return [draw(items(names, n)) for n in range(draw(st.integers(0, max_items)))], there


def counts_for(item: PackItem, device: PackDevice, overcommit: float = 1.0) -> list[float]:
    """What a slice counts for on a device: percent of compute, GB, percent of bandwidth."""
    bandwidth = 100 * item.bandwidth_share
    if device.bandwidth:
        bandwidth += 100 * item.bandwidth / device.bandwidth
    shares = [100 * item.compute, bandwidth]
    if not item.hard:
        shares = [max(share / overcommit, share * item.duty) for share in shares]
    return [shares[0], item.memory / GB, shares[1]]


def free_on(device: PackDevice) -> list[float]:
    taken = 100 * device.taken_bandwidth / device.bandwidth if device.bandwidth else 0.0
    return [
        100 * (device.compute - device.taken_compute),
        (device.memory - device.taken_memory) / GB,
        100 - taken,
    ]


def faults(
    found: Mapping[str, str],
    some: Sequence[PackItem],
    there: Sequence[PackDevice],
    overcommit: float = 1.0,
) -> Iterator[str]:
    """What is wrong with an assignment of slices to devices, told independently of the packer."""
    for device in there:
        here = [item for item in some if found.get(item.name) == device.name]
        used = np.sum([counts_for(item, device, overcommit) for item in here], axis=0)
        if here and np.any(used > np.array(free_on(device)) + 1e-5):
            yield f"{device.name} holds {used} of {free_on(device)}"
        groups = [item.apart for item in here if item.apart]
        if len(groups) > len(set(groups)):
            yield f"{device.name} holds {groups}"
        for item in here:
            if item.allowed is not None and device.name not in item.allowed:
                yield f"{item.name} may not be on {device.name}"


def optimum(
    some: Sequence[PackItem], there: Sequence[PackDevice], overcommit: float = 1.0
) -> Optimum:
    """By trying everything."""
    best = (len(some) + 1, 0)
    level = float("inf")
    for found in _assignments(some, there, overcommit, ()):
        held = {device.name for device in there} & set(found.values())
        opened = sum(device.name in held and not device.in_use for device in there)
        here = (len(some) - len(found), opened)
        if here[0] < best[0]:
            level = float("inf")
        if here[0] <= best[0]:
            level = min(level, level_of(found, some, there, overcommit))
        best = min(best, here)
    return Optimum(*best, level)


def level_of(
    found: Mapping[str, str],
    some: Sequence[PackItem],
    there: Sequence[PackDevice],
    overcommit: float = 1.0,
) -> float:
    """The largest share counted as used of a device that holds slices."""
    levels = [0.0]
    for device in there:
        here = [item for item in some if found.get(item.name) == device.name]
        if here:
            used = np.sum([counts_for(item, device, overcommit) for item in here], axis=0)
            total = np.array([100 * device.compute, device.memory / GB, 100.0])
            levels.append(float(np.max(1 - (np.array(free_on(device)) - used) / total)))
    return max(levels)


Placed = tuple[tuple[PackItem, str], ...]


def _assignments(
    rest: Sequence[PackItem], there: Sequence[PackDevice], overcommit: float, placed: Placed
) -> Iterator[dict[str, str]]:
    if not rest:
        yield {item.name: device for item, device in placed}
        return
    yield from _assignments(rest[1:], there, overcommit, placed)
    for device in there:
        more = (*placed, (rest[0], device.name))
        found = {item.name: name for item, name in more}
        if not any(faults(found, [item for item, _ in more], [device], overcommit)):
            yield from _assignments(rest[1:], there, overcommit, more)


def fleet(
    kind: str, num_items: int, num_devices: int, seed: int
) -> tuple[list[PackItem], list[PackDevice]]:
    """Many slices. `kinds` has a dozen kinds of them, `distinct` hardly two alike, and `unlike`
    also devices of three kinds, of which one is partly taken."""
    rng = np.random.default_rng(seed)
    there = [
        PackDevice(name=f"gpu:{n}", memory=80 * GB, bandwidth=3350e9) for n in range(num_devices)
    ]
    if kind == "unlike":
        there = [_unlike(n) for n in range(num_devices)]
    patterns = [_figures(rng) for _ in range(12)]
    figures = [
        patterns[rng.integers(12)] if kind == "kinds" else _figures(rng) for _ in range(num_items)
    ]
    return [
        PackItem(
            name=f"slice{number}", compute=compute / 100, memory=memory * GB, bandwidth=rate * GB
        )
        for number, (compute, memory, rate) in enumerate(figures)
    ], there


def _figures(rng: np.random.Generator) -> tuple[int, int, int]:
    return int(rng.integers(3, 31)), int(rng.integers(2, 26)), int(rng.integers(50, 900))


def _unlike(number: int) -> PackDevice:
    memory, rate, taken = ((80, 3350, 0.0), (141, 4800, 0.3), (96, 4000, 0.0))[number % 3]
    return PackDevice(
        name=f"gpu:{number}",
        memory=memory * GB,
        bandwidth=rate * 1e9,
        taken_compute=taken,
        taken_memory=60 * GB if taken else 0,
    )
