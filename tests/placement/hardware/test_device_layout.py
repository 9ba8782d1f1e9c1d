"""Where devices are: nodes, fast links and failure domains as arrays."""

import numpy as np
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster import ClusterSpec, NodeGroup
from moe_placement.hardware.layout import device_layout


def group(name: str, device: str, nodes: int, each: int, domain: int = 1) -> NodeGroup:
    return NodeGroup(
        name=name,
        device=find_device(device),
        num_nodes=nodes,
        devices_per_node=each,
        nodes_per_failure_domain=domain,
    )


def test_devices_are_counted_group_by_group_and_node_by_node() -> None:
    layout = device_layout(
        ClusterSpec(groups=(group("a", "h200", 3, 2, domain=2), group("b", "l40s", 2, 1)))
    )
    assert layout.group_N.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert layout.node_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 4]
    assert layout.fabric_N.tolist() == [0, 0, 1, 1, 2, 2, 3, 4]
    assert layout.domain_N.tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    assert layout.memory_N.tolist() == [141 * 2**30] * 6 + [46068 * 2**20] * 2


def test_a_rack_joins_nodes() -> None:
    layout = device_layout(ClusterSpec(groups=(group("rack", "gb200", 20, 4),)))
    assert np.bincount(layout.fabric_N).tolist() == [72, 8]
    assert np.bincount(layout.node_N).tolist() == [4] * 20


def test_ten_thousand_devices() -> None:
    groups = tuple(group(f"pool{number}", "h200", 63, 8, domain=4) for number in range(20))
    layout = device_layout(ClusterSpec(groups=groups))
    assert layout.group_N.size == 10080
    assert layout.node_N[-1] == 20 * 63 - 1
    assert layout.domain_N[-1] == 20 * 16 - 1
    assert layout.node_N.dtype == layout.memory_N.dtype == np.int64
