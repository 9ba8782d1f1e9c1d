"""A device from what `moe_kernels.calibrate` measured: peaks, and a fitted curve by format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_placement.hardware.curve_fit import Floats, fit_curve, relative_errors
from moe_placement.hardware.device import DeviceSpec, ExpertCurve
from moe_placement.hardware.section import HardwareError

# Twice the coefficients of a curve of two planes.
_FEWEST_POINTS = 12


@dataclass(frozen=True, slots=True)
class FitReport:
    """How far a fitted curve is from the times of one weight format, as shares of them.

    Attributes:
        held_out_median: over sizes that the fit did not see; NaN where there are none.
    """

    weight_format: str
    num_points: int
    median: float
    worst: float
    num_held_out: int
    held_out_median: float
    held_out_worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What one machine alone cannot measure: seconds, and bytes/s of one device."""

    link_latency: float
    network_bandwidth: float
    network_latency: float


def measured_device(
    name: str, measured: Mapping[str, Any], around: Surroundings
) -> tuple[DeviceSpec, tuple[FitReport, ...]]:
    """The device that a run of `moe_kernels.calibrate` saw, and how well its curves fit.

    Raises:
        HardwareError: too few sizes were measured.
    """
    formats: Mapping[str, Any] = measured["formats"]
    points = {key: entry["points"] for key, entry in formats.items()}
    flops = {
        key: max(entry["flops"], _best(points[key], "flops")) for key, entry in formats.items()
    }
    reading = max(_best(entries, "bytes") for entries in points.values())
    bandwidth = max(measured["stream_bandwidth"], reading)
    curves = {key: _fit(key, entries) for key, entries in points.items()}
    device = DeviceSpec(
        name=name,
        kind=measured["device"],
        flops=flops,
        memory_bytes=measured["memory_bytes"],
        bandwidth=bandwidth,
        link_bandwidth=measured["exchange_bandwidth"],
        link_latency=around.link_latency,
        network_bandwidth=around.network_bandwidth,
        network_latency=around.network_latency,
        devices_per_node=measured["num_devices"],
        compute_efficiency=min(formats[key]["flops"] / flops[key] for key in formats),
        memory_efficiency=reading / bandwidth,
        curves=curves,
        sources=_sources(measured),
    )
    return device, tuple(_report(key, curves[key], points[key]) for key in formats)


def _best(points: Sequence[Mapping[str, Any]], work: str) -> float:
    """The highest rate at which experts read, or multiply."""
    return max(float(point[work]) / float(point["seconds"]) for point in points)


def _fit(weight_format: str, points: Sequence[Mapping[str, Any]]) -> ExpertCurve:
    columns = _columns(points, held_out=False)
    if columns[0].size < _FEWEST_POINTS:
        raise HardwareError(
            f"{columns[0].size} sizes of {weight_format} experts were measured, a curve needs "
            f"{_FEWEST_POINTS}; give it more seconds, or smaller widths"
        )
    return fit_curve(*columns)


def _columns(points: Sequence[Mapping[str, Any]], held_out: bool) -> tuple[Floats, Floats, Floats]:
    chosen = [point for point in points if point["held_out"] == held_out]
    num_bytes, num_flops, seconds = (
        np.array([point[key] for point in chosen], np.float64)
        for key in ("bytes", "flops", "seconds")
    )
    return num_bytes, num_flops, seconds


def _report(
    weight_format: str, curve: ExpertCurve, points: Sequence[Mapping[str, Any]]
) -> FitReport:
    seen = np.abs(relative_errors(curve, *_columns(points, held_out=False)))
    unseen = np.abs(relative_errors(curve, *_columns(points, held_out=True)))
    has_unseen = unseen.size > 0
    return FitReport(
        weight_format=weight_format,
        num_points=seen.size,
        median=float(np.median(seen)),
        worst=float(seen.max()),
        num_held_out=unseen.size,
        held_out_median=float(np.median(unseen)) if has_unseen else float("nan"),
        held_out_worst=float(unseen.max()) if has_unseen else float("nan"),
    )


def _sources(measured: Mapping[str, Any]) -> dict[str, str]:
    run = (
        f"moe_plan calibrate on {measured['processor']}, {measured['threads']} threads, torch "
        f"{measured['torch']}, {measured['date']}"
    )
    shape = f"experts {measured['hidden']} x {measured['expert_width']}"
    given = "given to moe_plan calibrate, not measured"
    default = "default, not measured"
    return {
        "flops": run,
        "memory_bytes": f"{run}: of the machine, or what its container grants",
        "bandwidth": run,
        "link_bandwidth": f"{run}: a copy through the host's memory",
        "link_latency": given,
        "network_bandwidth": given,
        "network_latency": given,
        "devices_per_node": run,
        "compute_efficiency": f"{run}: flops are measured ones",
        "memory_efficiency": f"{run}: {shape}",
        "link_efficiency": default,
        "kernel_latency": default,
        "curves": f"{run}: {shape}",
    }
