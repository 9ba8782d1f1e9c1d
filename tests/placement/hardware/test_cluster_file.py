"""Cluster files and their short form: read strictly, written back, mistakes named."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hardware_files import ONE_DEVICE, WriteFile
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.cluster_file import (
    check_cluster,
    cluster_text,
    load_cluster,
    parse_groups,
)
from moe_placement.hardware.section import HardwareError

SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "clusters").glob("*.yaml"))
TWO_GROUPS = """
groups:
  - {name: hopper, device: h200_sxm, nodes: 4, price_per_hour: 4.1, nodes_per_failure_domain: 2}
  - {name: host, device: bench.yaml, nodes: 2, devices_per_node: 1, memory: 1TiB}
  - {name: ascend, device: atlas_a2_376t, nodes: 8}
links:
  - {between: [hopper, ascend], bandwidth: 25GB/s, latency: 20us}
"""


@pytest.fixture
def cluster(write_file: WriteFile) -> ClusterSpec:
    write_file(ONE_DEVICE)
    return load_cluster(write_file(TWO_GROUPS, "cluster.yaml"))


def test_groups(cluster: ClusterSpec, write_file: WriteFile) -> None:
    hopper, host, ascend = cluster.groups
    assert (hopper.device, hopper.num_devices) == (find_device("h200_sxm"), 32)
    assert (hopper.price_per_hour, hopper.nodes_per_failure_domain) == (4.1, 2)
    assert hopper.usable_memory == 141 * 2**30
    assert (host.device, host.num_devices) == (find_device(write_file(ONE_DEVICE)), 2)
    assert host.usable_memory == 2**40
    assert (ascend.num_devices, ascend.price_per_hour) == (64, None)
    assert cluster.num_devices == 98


def test_links_are_those_declared_else_the_lesser_network(cluster: ClusterSpec) -> None:
    declared = cluster.link("ascend", "hopper")
    assert (declared.bandwidth, declared.latency) == (25e9, 2e-5)
    other = cluster.link("hopper", "host")
    assert (other.bandwidth, other.latency) == (10e9, 2e-5)
    with pytest.raises(KeyError, match="nowhere"):
        cluster.link("hopper", "nowhere")


def test_written_and_read_again(cluster: ClusterSpec, write_file: WriteFile) -> None:
    assert load_cluster(write_file(cluster_text(cluster), "again.yaml")) == cluster


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_clusters(path: Path, write_file: WriteFile) -> None:
    cluster = load_cluster(path)
    assert load_cluster(write_file(cluster_text(cluster), "again.yaml")) == cluster
    assert all(group.price_per_hour is None for group in cluster.groups)


def test_clusters_are_shipped() -> None:
    sizes = {path.stem: load_cluster(path).num_devices for path in SHIPPED}
    assert sizes == {"h200_32": 32, "mixed_h20_910b_cpu": 36, "three_pools": 512}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nodes: 4", "node: 4", 'groups[0].nodes is missing; write .* (found "node")'),
        (
            "memory: 1TiB",
            "memori: 1TiB",
            "unknown key 'groups[1].memori'; did you mean \"memory\"?",
        ),
        ("memory: 1TiB", "memory: 1To", "groups[1].memory is '1To'; write a size such as 80GiB"),
        ("nodes: 8", "nodes: 0", "groups[2].nodes is 0; write a whole number of at least 1"),
        ("4.1", "cheap", "groups[0].price_per_hour is 'cheap'; write a number of at least 0"),
        ("h200_sxm", "h300", "groups[0].device: device 'h300' is not in the catalogue; nearest: h"),
        ("bench.yaml", "gone.yaml", "gone.yaml cannot be read"),
        ("name: host", "name: hopper", "groups[1].name 'hopper' is taken"),
        ("[hopper, ascend]", "[hopper, asend]", "links[0].between names no group 'asend'; groups"),
        ("[hopper, ascend]", "[hopper, hopper]", "links[0].between is ['hopper', 'hopper']; each"),
        ("[hopper, ascend]", "hopper", "links[0].between is 'hopper'; write two names of groups"),
        ("20us", "20 parsecs", "links[0].latency is '20 parsecs'; write a time such as 5us"),
        ("links:", "linx:", "unknown key 'linx'; did you mean \"links\"?"),
        ("groups:", "groups: []\nother:", "unknown key 'other'"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str, write_file: WriteFile) -> None:
    assert old in TWO_GROUPS
    write_file(ONE_DEVICE)
    path = write_file(TWO_GROUPS.replace(old, new, 1), "cluster.yaml")
    pattern = re.escape(message).replace(re.escape(".*"), ".*")
    with pytest.raises(HardwareError, match=pattern) as caught:
        load_cluster(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "groups: []"])
def test_a_cluster_has_groups(text: str, write_file: WriteFile) -> None:
    with pytest.raises(HardwareError, match="groups is empty"):
        load_cluster(write_file(text, "cluster.yaml"))


def test_one_name_is_one_device(cluster: ClusterSpec) -> None:
    first, *others = cluster.groups
    other = replace(first, name="other", device=replace(first.device, bandwidth=1.0))
    with pytest.raises(HardwareError, match="'h200_sxm' is two unlike devices; rename one"):
        check_cluster(ClusterSpec(groups=(first, *others, other)))


def test_short_form(write_file: WriteFile) -> None:
    path = write_file(ONE_DEVICE)
    cluster = parse_groups(f"h200:32, atlas_a2_376t:64@2.5,gb200:2,{path}:8")
    assert [group.name for group in cluster.groups] == [
        "h200_sxm",
        "atlas_a2_376t",
        "gb200",
        "bench",
    ]
    assert [(group.num_nodes, group.devices_per_node) for group in cluster.groups] == [
        (4, 8),
        (8, 8),
        (1, 2),
        (1, 8),
    ]
    assert [group.price_per_hour for group in cluster.groups] == [None, 2.5, None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no group of devices; write device:count"),
        ("h200", "'h200' is no group of devices"),
        ("h200:many", "'h200:many' is no group of devices"),
        ("h200:0", "'h200:0' is no group of devices"),
        ("h200:8@", "'h200:8@' is no group of devices"),
        ("h200:8@free", "'h200:8@free' is no group of devices"),
        ("h200:33", "'h200:33' does not fill its nodes of 8; write 32 or 40"),
        ("h200:8,h200_sxm:8", "'h200_sxm' is there twice in 'h200:8,h200_sxm:8'; add the counts"),
        ("h300:8", "'h300' is not in the catalogue; nearest"),
    ],
)
def test_short_forms_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(HardwareError, match=re.escape(message)):
        parse_groups(text)
