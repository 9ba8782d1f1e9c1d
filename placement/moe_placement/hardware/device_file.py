"""One device as YAML: read strictly, each figure with its source, and written back."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import cast, get_args

from moe_placement.hardware.device import (
    DeviceKind,
    DeviceSpec,
    ExpertCurve,
    ExpertEfficiency,
    Plane,
)
from moe_placement.hardware.section import HardwareError, Section, plain, read_section
from moe_placement.hardware.units import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    FLOPS,
    NOT_NEGATIVE,
    SECONDS,
    SHARE,
    TEXT,
    Kind,
)
from moe_placement.model.formats import FORMATS

# As devices list them; checkpoints have variants of some, with scales of their own.
_FORMAT_KINDS = tuple(dict.fromkeys(kept.kind for kept in FORMATS.values()))
_NO_FIGURE = ("name", "kind", "sources")
_FIGURES = tuple(field.name for field in fields(DeviceSpec) if field.name not in _NO_FIGURE)
_OPTIONAL = ("devices_per_domain", "expert_efficiency", "curves", "sources")
_KIND = Kind(
    "one of cpu, cuda, npu", lambda value: value if value in get_args(DeviceKind) else None
)


def read_devices(path: Path) -> dict[str, tuple[DeviceSpec, tuple[str, ...]]]:
    """Every device of a file by name, with its other names.

    Raises:
        HardwareError: names the file, the key, the value and the fix.
    """
    document = read_section(path)
    devices = devices_of(document)
    document.finish()
    if not devices:
        raise document.error("devices is empty; describe one under devices.NAME")
    return devices


def devices_of(document: Section) -> dict[str, tuple[DeviceSpec, tuple[str, ...]]]:
    """The same from a file that also holds other things; it may have no devices."""
    references = document.section("references").each(TEXT)
    return {
        name: _read_entry(name, section, references)
        for name, section in document.section("devices").each_section()
    }


def device_text(device: DeviceSpec) -> str:
    """The YAML file of one device; `read_devices` gives the same device back."""
    return plain({"devices": {device.name: device_entry(device)}})


def device_entry(device: DeviceSpec) -> dict[str, object]:
    """One device as plain values, without what it leaves to defaults."""
    entry: dict[str, object] = {"kind": device.kind}
    entry |= {name: getattr(device, name) for name in _FIGURES}
    entry["flops"] = dict(device.flops)
    entry["expert_efficiency"] = {
        weight_format: {"bandwidth": share.bandwidth, "compute": share.compute}
        for weight_format, share in device.expert_efficiency.items()
    }
    entry["curves"] = {
        weight_format: [_plane_entry(plane) for plane in curve.planes]
        for weight_format, curve in device.curves.items()
    }
    entry["sources"] = dict(device.sources)
    return {key: value for key, value in entry.items() if value or key not in _OPTIONAL}


def figures_of(device: DeviceSpec) -> tuple[str, ...]:
    """The names of the figures that a device has; each should have a source."""
    return tuple(name for name in _FIGURES if getattr(device, name) or name not in _OPTIONAL)


def _read_entry(
    name: str, section: Section, references: Mapping[str, str]
) -> tuple[DeviceSpec, tuple[str, ...]]:
    aliases = section.words("aliases")
    return _read_device(name, section, references), aliases


def _read_device(name: str, section: Section, references: Mapping[str, str]) -> DeviceSpec:
    sources = _sources(section, references)
    device = DeviceSpec(
        name=name,
        kind=cast(DeviceKind, section.take("kind", _KIND)),
        flops=_by_format(section.section("flops")),
        memory_bytes=section.take("memory_bytes", BYTES),
        bandwidth=section.take("bandwidth", BYTES_PER_SECOND),
        link_bandwidth=section.take("link_bandwidth", BYTES_PER_SECOND),
        link_latency=section.take("link_latency", SECONDS),
        network_bandwidth=section.take("network_bandwidth", BYTES_PER_SECOND),
        network_latency=section.take("network_latency", SECONDS),
        devices_per_node=section.get("devices_per_node", COUNT, 8),
        devices_per_domain=section.get("devices_per_domain", COUNT, 0),
        compute_efficiency=section.get("compute_efficiency", SHARE, 0.7),
        memory_efficiency=section.get("memory_efficiency", SHARE, 0.7),
        link_efficiency=section.get("link_efficiency", SHARE, 0.7),
        kernel_latency=section.get("kernel_latency", SECONDS, 5e-6),
        expert_efficiency=_expert_efficiency(section.section("expert_efficiency")),
        curves=_curves(section.section("curves")),
        sources=sources,
    )
    section.finish()
    if not device.flops:
        raise section.error(f"{section.where}.flops is empty; give at least bfloat16")
    return device


def _by_format(section: Section) -> dict[str, float]:
    rates = {kind: section.find(kind, FLOPS) for kind in _FORMAT_KINDS}
    section.finish()
    return {kind: rate for kind, rate in rates.items() if rate is not None}


def _expert_efficiency(section: Section) -> dict[str, ExpertEfficiency]:
    given = [kind for kind in _FORMAT_KINDS if kind in section.left]
    shares = {kind: _shares(section.section(kind)) for kind in given}
    section.finish()
    return shares


def _shares(section: Section) -> ExpertEfficiency:
    shares = ExpertEfficiency(section.take("bandwidth", SHARE), section.take("compute", SHARE))
    section.finish()
    return shares


def _curves(section: Section) -> dict[str, ExpertCurve]:
    planes = {kind: tuple(map(_plane, section.sections(kind))) for kind in _FORMAT_KINDS}
    section.finish()
    return {kind: ExpertCurve(of_kind) for kind, of_kind in planes.items() if of_kind}


def _plane(section: Section) -> Plane:
    plane = Plane(
        section.take("fixed", SECONDS),
        section.take("per_byte", NOT_NEGATIVE),
        section.take("per_flop", NOT_NEGATIVE),
    )
    section.finish()
    return plane


def _plane_entry(plane: Plane) -> dict[str, float]:
    return {"fixed": plane.fixed, "per_byte": plane.per_byte, "per_flop": plane.per_flop}


def _sources(section: Section, references: Mapping[str, str]) -> dict[str, str]:
    common = section.get("source", TEXT, "")
    given = set(section.left)
    sources = {name: common for name in _FIGURES if common and name in given}
    named = section.section("sources")
    for key, source in named.each(TEXT).items():
        if key not in _FIGURES:
            raise HardwareError(
                f"{section.file}: {named.where} names no figure {key!r}; figures: "
                f"{', '.join(_FIGURES)}"
            )
        sources[key] = source
    return {key: _resolved(source, references) for key, source in sources.items()}


def _resolved(source: str, references: Mapping[str, str]) -> str:
    reference, separator, note = source.partition(":")
    return references.get(reference, reference) + separator + note
