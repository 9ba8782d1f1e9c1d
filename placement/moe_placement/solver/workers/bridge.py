"""The bridge between unlike pools of one EP group: what it adds to a layer.

A token crosses to a pool at most once in a layer, to the rank there that has most of its experts;
that rank forwards it inside the pool, adds up what comes back, and returns one float32 row.

Shapes: P parts of the worker, L MoE layers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.hardware.cluster import ClusterSpec, GroupLink, NodeGroup
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.worker import Part

Floats = NDArray[np.float64]

_SUM_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Bridge:
    """Attributes:
    outward_bytes: of one row on its way to another pool, or inside it.
    return_bytes: of one row on its way back.
    chosen: experts of a token.
    devices_P: devices of each part.
    inner_P: bytes/s of one device to the others of its part.
    seconds_per_byte_PP: of one device to another part; 0 to its own.
    latency: seconds of the slowest message between parts.
    """

    outward_bytes: float
    return_bytes: float
    chosen: int
    devices_P: Floats
    inner_P: Floats
    seconds_per_byte_PP: Floats
    latency: float

    @staticmethod
    def of(context: CostContext, parts: Sequence[Part]) -> "Bridge":
        spec, groups = context.spec, [context.group(part) for part in parts]
        links = [[link_between(context.cluster, one, other) for other in groups] for one in groups]
        return Bridge(
            outward_bytes=spec.hidden_size * context.activation_bytes,
            return_bytes=spec.hidden_size * _SUM_BYTES,
            chosen=spec.num_experts_per_token,
            devices_P=np.array([part.num_devices for part in parts], float),
            inner_P=np.array([inner_bandwidth(context, part) for part in parts]),
            seconds_per_byte_PP=np.array([[1 / link.bandwidth for link in row] for row in links])
            * (1 - np.eye(len(parts))),
            latency=max(link.latency for row in links for link in row),
        )

    def crossing_share(self, mass_LP: Floats) -> Floats:
        """Share of tokens that have an expert in each part, given its share of the rows."""
        return 1 - (1 - np.clip(mass_LP, 0.0, 1.0)) ** self.chosen

    def layer_seconds(self, tokens_P: Floats, mass_LP: Floats) -> Floats:
        """Seconds of each layer: two crossings of the slowest device, and forwarding inside."""
        crossing_LP = self.crossing_share(mass_LP)
        away_PP = 1 - np.eye(len(tokens_P))
        rows_LPP = tokens_P[:, None] * crossing_LP[:, None, :] * away_PP
        out_LPP = rows_LPP * self.seconds_per_byte_PP
        both_ways = self.outward_bytes + self.return_bytes
        # A link carries both directions at once, but nothing returns before all have crossed.
        link_LP = np.maximum(out_LPP.sum(2), out_LPP.sum(1)) * both_ways / self.devices_P
        inside_LP = rows_LPP.sum(1) * self._forwarded(mass_LP, crossing_LP)
        inside_LP *= both_ways / (self.devices_P * self.inner_P)
        seconds_L: Floats = (link_LP + inside_LP).max(1) + 2 * self.latency
        return seconds_L

    def row_seconds(self, mass_P: Floats, share_P: Floats) -> Floats:
        """Link seconds that each row adds to a rank of a part, for placing: rows of other parts'
        tokens, of which several come in one crossing, and rows from within.

        Args:
            share_P: share of the tokens that each part has.
        """
        crossing_P = self.crossing_share(mass_P[None])[0]
        together_P = self.chosen * mass_P / np.maximum(crossing_P, 1e-12)
        both_ways = self.outward_bytes + self.return_bytes
        outer_P = share_P @ self.seconds_per_byte_PP / np.maximum(together_P, 1.0)
        result: Floats = both_ways * (outer_P + share_P / self.inner_P)
        return result

    def _forwarded(self, mass_LP: Floats, crossing_LP: Floats) -> Floats:
        """Ranks beyond the entry that one crossing token reaches, in the mean."""
        experts_LP = self.chosen * mass_LP / np.maximum(crossing_LP, 1e-12)
        reached_LP = self.devices_P * (1 - (1 - 1 / self.devices_P) ** experts_LP)
        result: Floats = np.maximum(reached_LP - 1, 0.0)
        return result


def inner_bandwidth(context: CostContext, part: Part) -> float:
    """Bytes/s that one device of a part reaches to the others of it; inf where it is alone."""
    if part.num_devices == 1:
        return math.inf
    device, group = context.device(part), context.group(part)
    near = max(device.devices_per_domain, group.devices_per_node)
    fastest = device.link_bandwidth if part.num_devices <= near else device.network_bandwidth
    return fastest * device.link_efficiency


def link_between(cluster: ClusterSpec, one: NodeGroup, other: NodeGroup) -> GroupLink:
    """The link between two groups: as given, else the slower of their networks; within a group
    of one node, the device's own."""
    for link in cluster.links:
        if set(link.between) == {one.name, other.name}:
            return link
    device = one.device
    if one is other and one.num_nodes == 1:
        bandwidth = device.link_bandwidth * device.link_efficiency
        return GroupLink(
            between=(one.name, one.name), bandwidth=bandwidth, latency=device.link_latency
        )
    devices = (one.device, other.device)
    return GroupLink(
        between=(one.name, other.name),
        bandwidth=min(device.network_bandwidth * device.link_efficiency for device in devices),
        latency=max(device.network_latency for device in devices),
    )
