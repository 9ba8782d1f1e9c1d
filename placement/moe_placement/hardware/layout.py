"""Where each device of a cluster is, as arrays, for any number of devices.

Shapes: N devices, counted as plan ranks are: group by group, node by node.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.hardware.cluster import ClusterSpec, NodeGroup

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceLayout:
    """Numbers of groups, nodes and domains run over the whole cluster.

    Attributes:
        group_N: index of the group in the cluster.
        node_N: node.
        fabric_N: devices that the fast link joins: a node, or more than one.
        domain_N: what fails together.
        memory_N: bytes that the device may use.
    """

    group_N: Ints
    node_N: Ints
    fabric_N: Ints
    domain_N: Ints
    memory_N: Ints


def device_layout(cluster: ClusterSpec) -> DeviceLayout:
    """The layout of every device of a cluster."""
    groups = cluster.groups
    sizes = [group.num_devices for group in groups]
    return DeviceLayout(
        group_N=np.repeat(np.arange(len(groups)), sizes),
        node_N=_numbered(groups, [group.devices_per_node for group in groups]),
        fabric_N=_numbered(groups, [_devices_per_fabric(group) for group in groups]),
        domain_N=_numbered(
            groups, [group.devices_per_node * group.nodes_per_failure_domain for group in groups]
        ),
        memory_N=np.repeat([group.usable_memory for group in groups], sizes),
    )


def _devices_per_fabric(group: NodeGroup) -> int:
    """A rack whose fast link joins more than a node does so for nodes that are not full, too."""
    nodes = max(1, group.device.devices_per_domain // group.device.devices_per_node)
    return nodes * group.devices_per_node


def _numbered(groups: Iterable[NodeGroup], sizes: Iterable[int]) -> Ints:
    """Each group cut into parts of a size (its last may be smaller), numbered through."""
    parts: list[Ints] = []
    first = 0
    for group, size in zip(groups, sizes, strict=True):
        numbers = np.arange(group.num_devices) // size
        parts.append(first + numbers)
        first += int(numbers[-1]) + 1
    return np.concatenate(parts).astype(np.int64)
