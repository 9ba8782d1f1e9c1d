"""What a device is to a planner: peaks, memory, links, and a curve for the experts it computes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DeviceKind = Literal["cpu", "cuda", "npu"]


@dataclass(frozen=True, slots=True)
class Plane:
    """Seconds that grow linearly: one bound of an expert curve."""

    fixed: float
    per_byte: float
    per_flop: float


@dataclass(frozen=True, slots=True)
class ExpertCurve:
    """Seconds of one MoE layer's routed experts on one device.

    The largest of a few planes, so convex and growing: a device is bound by reading the weights
    of the experts that are touched, or by multiplying, never by one scalar speed.
    """

    planes: tuple[Plane, ...]

    def seconds(self, num_bytes: float, num_flops: float) -> float:
        """Time to read `num_bytes` of expert weights and do `num_flops` with them."""
        return max(
            plane.fixed + plane.per_byte * num_bytes + plane.per_flop * num_flops
            for plane in self.planes
        )


@dataclass(frozen=True, slots=True)
class ExpertEfficiency:
    """Shares of the peaks that the grouped products of experts reach.

    They read many small matrices and pad the rows of each, so they reach less than one large
    product does.
    """

    bandwidth: float
    compute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One kind of device, as the catalogue or `moe_plan calibrate` has it.

    Attributes:
        name: as in `h200_sxm`.
        flops: peak dense FLOP/s of matrix products by kind of weight format: float32,
            bfloat16, float16, fp8, int8, fp4, int4; one that it cannot multiply in is absent.
        memory_bytes: of one device.
        bandwidth: peak bytes/s of its memory.
        link_bandwidth: bytes/s of one device to its like inside a node, one direction.
        link_latency: seconds of one message there.
        network_bandwidth: bytes/s of one device to another node, one direction.
        network_latency: seconds of one message there.
        devices_per_node: as machines are sold.
        devices_per_domain: devices that the fast link joins, where that is more than a node
            (72 in an NVL72 rack); 0 is devices_per_node.
        compute_efficiency: share of peak FLOP/s that large products reach.
        memory_efficiency: share of peak bandwidth that reading weights reaches.
        link_efficiency: share of link and network bandwidth that exchanges reach.
        kernel_latency: seconds that one kernel takes beyond its work.
        expert_efficiency: by kind of format, where grouped products were measured; where none
            was, compute_efficiency and memory_efficiency hold for them too.
        curves: measured expert curves by kind of format; where one is absent,
            `hardware/curves.py` derives one from the peaks.
        sources: where each figure comes from, by attribute name.
    """

    name: str
    kind: DeviceKind
    flops: Mapping[str, float]
    memory_bytes: int
    bandwidth: float
    link_bandwidth: float
    link_latency: float
    network_bandwidth: float
    network_latency: float
    devices_per_node: int = 8
    devices_per_domain: int = 0
    compute_efficiency: float = 0.7
    memory_efficiency: float = 0.7
    link_efficiency: float = 0.7
    kernel_latency: float = 5e-6
    expert_efficiency: Mapping[str, ExpertEfficiency] = field(default_factory=dict)
    curves: Mapping[str, ExpertCurve] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
