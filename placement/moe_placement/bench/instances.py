"""Placement problems to compare solvers on: equal devices, two speeds, and real ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.curves import expert_curve
from moe_placement.hardware.device import DeviceSpec, ExpertCurve, Plane
from moe_placement.load.skew import Skew, popularity
from moe_placement.model.catalogue import find_model
from moe_placement.model.formats import format_bytes
from moe_placement.solver.problem import ExpertProblem, Floats, Ints

# The example of the EPLB repository's README: two layers of 12 experts, on 8 devices of 2 nodes
# with 16 slots, and 4 groups of experts.
TWO_LAYERS_LE: Floats = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    np.float64,
)

# Dispatched in one byte per element and combined in two.
_LINK_BYTES_PER_ELEMENT = 3


def skewed_rows(num_layers: int, num_experts: int, num_rows: float, seed: int) -> Floats:
    """Mean rows of each expert, as skewed as real ones; each layer has `num_rows`."""
    skew = Skew(num_layers=num_layers, num_experts=num_experts)
    return next(popularity(skew, seed=seed)) * num_rows


def scalar_devices(
    rows_LE: Floats, slots_N: Ints, *, speed_N: Floats | None = None
) -> ExpertProblem:
    """Devices whose time is rows over speed and nothing else, as EPLB takes them to be."""
    num_ranks = len(slots_N)
    speeds = np.ones(num_ranks) if speed_N is None else speed_N
    distinct, curve_N = np.unique(speeds, return_inverse=True)
    return ExpertProblem(
        rows_LE=rows_LE,
        flops_per_row=1.0,
        expert_bytes_N=np.ones(num_ranks),
        slots_N=slots_N,
        curves=tuple(ExpertCurve((Plane(0.0, 0.0, 1.0 / float(speed)),)) for speed in distinct),
        curve_N=curve_N.astype(np.int64),
        row_seconds_N=np.zeros(num_ranks),
        node_N=np.zeros(num_ranks, np.int64),
        domain_N=np.arange(num_ranks),
    )


@dataclass(frozen=True, slots=True)
class Part:
    """Like devices of a mixed EP group.

    Attributes:
        slots: that each has room for in every layer.
    """

    device: str
    weight_format: str
    num_devices: int
    slots: int


def real_devices(
    rows_LE: Floats, parts: Sequence[Part], *, model: str = "deepseek_v3", has_links: bool = False
) -> ExpertProblem:
    """A shipped model's experts on devices of the catalogue, by their true curves.

    Args:
        has_links: each row costs its transfer over the device's network.
    """
    spec = find_model(model)
    devices = [find_device(part.device) for part in parts]
    count_P = [part.num_devices for part in parts]
    bytes_P = [format_bytes(spec.mlp.expert, part.weight_format) for part in parts]
    link_P = [_row_seconds(device, spec.hidden_size) if has_links else 0.0 for device in devices]
    num_ranks = sum(count_P)
    return ExpertProblem(
        rows_LE=rows_LE,
        flops_per_row=2.0 * spec.mlp.expert,
        expert_bytes_N=np.repeat(np.array(bytes_P, np.float64), count_P),
        slots_N=np.repeat([part.slots for part in parts], count_P),
        curves=tuple(
            expert_curve(device, part.weight_format)
            for device, part in zip(devices, parts, strict=True)
        ),
        curve_N=np.repeat(np.arange(len(parts)), count_P),
        row_seconds_N=np.repeat(link_P, count_P),
        node_N=np.arange(num_ranks) // 8,
        domain_N=np.arange(num_ranks) // 8,
    )


def _row_seconds(device: DeviceSpec, hidden_size: int) -> float:
    bandwidth = device.network_bandwidth * device.link_efficiency
    return hidden_size * _LINK_BYTES_PER_ELEMENT / bandwidth
