"""Slices from a YAML file, and devices from the same file or a cluster.

slices:
  - {name: chat, model: qwen3_8b, kv_tokens: 50000, compute_percent: 25, duty: 0.3, count: 4}
  - {name: embed, memory: 6GiB, compute_percent: 10, bandwidth: 200GB/s, mode: hard}
devices:
  - {name: gpu, device: h100_sxm, count: 8, taken: {compute_percent: 10, memory: 20GiB}}
beside:
  - {model: qwen3_30b_a3b, plan: qwen.plan.json, compute_percent: 40, kv_tokens: 100000}
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.section import Section
from moe_placement.hardware.units import BYTES, BYTES_PER_SECOND, COUNT, SHARE, TEXT, Kind
from moe_placement.model.catalogue import find_model
from moe_placement.packing.known_devices import (
    FORMAT,
    PERCENT,
    STEP_LIMITS,
    KnownDevice,
    cluster_devices,
    named_devices,
    one_of,
    read_devices,
    with_model,
)
from moe_placement.packing.model_memory import alone_bytes
from moe_placement.packing.slices import PackDevice, PackItem

_YES_OR_NAME: Kind[bool | str] = Kind(
    "true, or a name that several share",
    lambda value: value if isinstance(value, bool | str) and value != "" else None,
)


def read_slices(
    document: Section, cluster: ClusterSpec | None
) -> tuple[list[PackItem], list[PackDevice]]:
    """The slices and devices of a file.

    Args:
        cluster: the devices, where the file names none.

    Raises:
        HardwareError: names the file, the key, the value and the fix.
        UnknownModelError: a model that is neither shipped nor a file.
        PlanError: a plan file that cannot be read.
    """
    sections = document.sections("devices")
    if bool(sections) == (cluster is not None):
        fault = "are given twice" if sections else "are missing"
        raise document.error(f"devices {fault}; write them here, or give --devices or --cluster")
    if cluster is not None:
        devices = list(cluster_devices(cluster))
    else:
        devices = [device for section in sections for device in read_devices(section)]
    for section in document.sections("beside"):
        devices = with_model(section, devices)
    items = [item for section in document.sections("slices") for item in _copies(section, devices)]
    document.finish()
    return items, [device.figures for device in devices]


def _copies(section: Section, devices: Sequence[KnownDevice]) -> Iterator[PackItem]:
    name = section.take("name", TEXT)
    apart = section.get("apart", _YES_OR_NAME, False)
    count = section.get("count", COUNT, 1)
    allowed = named_devices(section, devices)
    item = PackItem(
        name=name,
        compute=section.take("compute_percent", PERCENT),
        memory=_memory(section, devices),
        bandwidth=section.find("bandwidth", BYTES_PER_SECOND) or 0.0,
        bandwidth_share=section.get("bandwidth_percent", PERCENT, 0.0),
        allowed=tuple(device.figures.name for device in allowed) or None,
        hard=section.get("mode", one_of("share", "hard"), "share") == "hard",
        duty=section.get("duty", SHARE, 1.0),
        apart=apart if isinstance(apart, str) else name * apart,
        at_once=section.get("isolate", one_of("time", "sm"), "time") == "sm",
    )
    section.finish()
    for number in range(count):
        yield item if count == 1 else replace(item, name=f"{name}-{number}")


def _memory(section: Section, devices: Sequence[KnownDevice]) -> int:
    """As given, else what the model takes with so many tokens of cache."""
    given, model = section.find("memory", BYTES), section.find("model", TEXT)
    weights = section.get("weights", FORMAT, "bfloat16")
    kv_tokens = section.find("kv_tokens", COUNT)
    if given is not None:
        return given
    if model is None or kv_tokens is None:
        raise section.error(
            f"{section.where}.memory is missing; write a size, or model and kv_tokens to have it "
            "worked out"
        )
    return alone_bytes(
        find_model(model),
        device=devices[0].kind,
        weight_format=weights,
        kv_tokens=kv_tokens,
        limits=STEP_LIMITS,
    )
