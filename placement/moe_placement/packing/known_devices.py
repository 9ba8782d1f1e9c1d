"""The devices to pack onto: of a cluster or a file, with what a model takes that spans them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moe_placement.equal_split import equal_split
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.section import Section
from moe_placement.hardware.units import BYTES, BYTES_PER_SECOND, COUNT, TEXT, Kind
from moe_placement.model.catalogue import find_model
from moe_placement.model.formats import FORMATS
from moe_placement.packing.model_memory import bytes_by_rank
from moe_placement.packing.slices import PackDevice
from moe_placement.plan import PlanError, PoolPlan
from moe_placement.plan_file import load as load_plan

# Most tokens of a step and most sequences, as the engine has them by default.
STEP_LIMITS = (2048, 256)


def one_of(*words: str) -> Kind[str]:
    """One of a few words."""
    return Kind(
        " or ".join(words),
        lambda value: value if isinstance(value, str) and value in words else None,
    )


def _percent(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value / 100 if 0 <= value <= 100 else None


PERCENT: Kind[float] = Kind("a number of percent, 0 to 100", _percent)
FORMAT = one_of(*FORMATS)


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device, and what is known of it beside its figures.

    Attributes:
        kind: cpu, cuda, npu or emulated.
        group: the name that it shares with those that were named together.
    """

    figures: PackDevice
    kind: str
    group: str


def cluster_devices(cluster: ClusterSpec) -> Iterator[KnownDevice]:
    """The devices of a cluster, as plan ranks count them."""
    for group in cluster.groups:
        figures = PackDevice(
            name=group.name, memory=group.usable_memory, bandwidth=group.device.bandwidth
        )
        yield from _numbered(figures, group.device.kind, group.num_devices)


def read_devices(section: Section) -> Iterator[KnownDevice]:
    """Like devices under one name; HardwareError names the key, the value and the fix."""
    device = section.find("device", TEXT)
    spec = None if device is None else _device(device, section)
    memory = section.find("memory", BYTES) or (spec.memory_bytes if spec else 0)
    if not memory:
        raise section.error(
            f"{section.where}.memory is missing; write a size, or a device of the catalogue"
        )
    taken = section.section("taken")
    figures = PackDevice(
        name=section.take("name", TEXT),
        memory=memory,
        bandwidth=section.find("bandwidth", BYTES_PER_SECOND) or (spec.bandwidth if spec else 0.0),
        taken_compute=taken.get("compute_percent", PERCENT, 0.0),
        taken_memory=taken.find("memory", BYTES) or 0,
        taken_bandwidth=taken.find("bandwidth", BYTES_PER_SECOND) or 0.0,
    )
    taken.finish()
    count = section.get("count", COUNT, 1)
    section.finish()
    yield from _numbered(figures, spec.kind if spec else "cuda", count)


def with_model(section: Section, devices: Sequence[KnownDevice]) -> list[KnownDevice]:
    """The devices with what a model takes that spans all of them, or those it names: by its plan,
    whose ranks count them in their order, or with its experts split evenly.

    Raises:
        HardwareError: names the key, the value and the fix.
    """
    spec = find_model(section.take("model", TEXT))
    plan_file = section.find("plan", TEXT)
    weights = section.get("weights", FORMAT, "bfloat16")
    share = section.get("compute_percent", PERCENT, 0.0)
    kv_tokens = section.get("kv_tokens", COUNT, 1)
    among = named_devices(section, devices) or devices
    section.finish()
    if plan_file is None:
        ranks = tuple(range(len(among)))
        pool = PoolPlan("all", among[0].kind, ranks, weight_format=weights)
        plan = equal_split("beside", spec.num_experts, spec.moe_layers, (pool,))
    else:
        plan = load_plan(_beside(section, plan_file))
    if plan.num_ranks != len(among):
        raise section.error(
            f"{section.where}.plan has {plan.num_ranks} ranks, and there are {len(among)} "
            "devices for it; give as many"
        )
    try:
        taken = bytes_by_rank(spec, plan, kv_tokens=kv_tokens, limits=STEP_LIMITS)
    except PlanError as error:
        raise section.error(f"{section.where}.plan: {error}") from error
    taken_of = dict(zip((device.figures.name for device in among), taken, strict=True))
    return [
        replace(device, figures=taking(device.figures, share, taken_of[device.figures.name]))
        if device.figures.name in taken_of
        else device
        for device in devices
    ]


def named_devices(section: Section, devices: Sequence[KnownDevice]) -> list[KnownDevice]:
    """Those that a section's `devices` names, alone or as a group; none where it has no such key.

    Raises:
        HardwareError: a name that no device has.
    """
    asked = section.words("devices")
    for name in asked:
        if not any(name in (device.group, device.figures.name) for device in devices):
            known = ", ".join(dict.fromkeys(device.group for device in devices))
            raise section.error(
                f"{section.where}.devices names {name!r}, which is no device here; there are "
                f"{known}"
            )
    return [one for one in devices if one.group in asked or one.figures.name in asked]


def taking(device: PackDevice, compute: float, memory: int) -> PackDevice:
    """A device of which so much more is taken."""
    return replace(
        device,
        taken_compute=device.taken_compute + compute,
        taken_memory=device.taken_memory + memory,
    )


def _numbered(figures: PackDevice, kind: str, count: int) -> Iterator[KnownDevice]:
    for number in range(count):
        one = replace(figures, name=f"{figures.name}:{number}")
        yield KnownDevice(one, kind, figures.name)


def _device(name: str, section: Section) -> DeviceSpec:
    return find_device(_beside(section, name) if name.endswith((".yaml", ".yml")) else name)


def _beside(section: Section, name: str) -> Path:
    """Files are looked for from the folder of the file that names them."""
    return Path(section.file).parent / name
