"""Clusters as YAML files, read strictly and written back, and in short on a command line."""

from collections.abc import Sequence
from pathlib import Path

from moe_placement.hardware.catalogue import find_device, load_catalogue
from moe_placement.hardware.cluster import ClusterSpec, GroupLink, NodeGroup
from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.device_file import device_entry, devices_of
from moe_placement.hardware.section import HardwareError, Section, plain, read_section
from moe_placement.hardware.units import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    NOT_NEGATIVE,
    SECONDS,
    TEXT,
    Kind,
)

_PAIR: Kind[list[str]] = Kind(
    "two names of groups",
    lambda value: (
        value
        if isinstance(value, list) and len(value) == 2 and all(isinstance(x, str) for x in value)
        else None
    ),
)


def load_cluster(path: Path) -> ClusterSpec:
    """Read a cluster: `groups`, `links` between them, and `devices` of its own, if any.

    A group's `device` is one of the file's own, a name of the catalogue, or the path of a YAML
    file, from the folder of this one.

    Raises:
        HardwareError: names the file, the key, the value and the fix.
    """
    document = read_section(path)
    own = {name: device for name, (device, _) in devices_of(document).items()}
    groups = tuple(_read_group(section, own, path) for section in document.sections("groups"))
    links = tuple(_read_link(section) for section in document.sections("links"))
    document.finish()
    cluster = ClusterSpec(groups=groups, links=links)
    try:
        check_cluster(cluster)
    except HardwareError as error:
        raise document.error(str(error)) from error
    return cluster


def check_cluster(cluster: ClusterSpec) -> None:
    """Raise HardwareError unless names are unique and links join two groups that exist."""
    if not cluster.groups:
        raise HardwareError("groups is empty; give at least one group of devices")
    _check_groups(cluster.groups)
    _check_links(cluster.links, [group.name for group in cluster.groups])


def _check_groups(groups: Sequence[NodeGroup]) -> None:
    taken: set[str] = set()
    devices: dict[str, DeviceSpec] = {}
    for number, group in enumerate(groups):
        if group.name in taken:
            raise HardwareError(
                f"groups[{number}].name {group.name!r} is taken; each group needs its own"
            )
        if devices.setdefault(group.device.name, group.device) != group.device:
            raise HardwareError(
                f"groups[{number}].device {group.device.name!r} is two unlike devices; rename one"
            )
        taken.add(group.name)


def _check_links(links: Sequence[GroupLink], names: Sequence[str]) -> None:
    pairs: list[set[str]] = []
    for number, link in enumerate(links):
        for name in link.between:
            if name not in names:
                raise HardwareError(
                    f"links[{number}].between names no group {name!r}; groups: {', '.join(names)}"
                )
        pair = set(link.between)
        if len(pair) < 2 or pair in pairs:
            raise HardwareError(
                f"links[{number}].between is {list(link.between)}; each pair of unlike groups "
                "may have one link (the links inside a group are its device's)"
            )
        pairs.append(pair)


def cluster_text(cluster: ClusterSpec) -> str:
    """The YAML file of a cluster; `load_cluster` gives the same cluster back."""
    catalogue = load_catalogue()
    own = {
        group.device.name: device_entry(group.device)
        for group in cluster.groups
        if catalogue.get(group.device.name) != group.device
    }
    return plain(
        ({"devices": own} if own else {})
        | {"groups": [_group_entry(group) for group in cluster.groups]}
        | ({"links": [_link_entry(link) for link in cluster.links]} if cluster.links else {})
    )


def parse_groups(text: str) -> ClusterSpec:
    """A cluster from `device:count[@price per hour],...`, as `h200_sxm:32,atlas_a2_376t:64@2.5`.

    Raises:
        HardwareError: names the part that is wrong and the fix.
    """
    groups: list[NodeGroup] = []
    for part in text.split(","):
        group = _parse_group(part.strip())
        taken = {other.name for other in groups}
        if group.name in taken:
            raise HardwareError(f"device {group.name!r} is there twice in {text!r}; add the counts")
        groups.append(group)
    return ClusterSpec(groups=tuple(groups))


def _parse_group(part: str) -> NodeGroup:
    name, _, rest = part.rpartition(":")
    count, has_price, price = rest.partition("@")
    num_devices = COUNT.parse(int(count)) if count.isdecimal() else None
    price_per_hour = NOT_NEGATIVE.parse(price) if has_price else None
    if not name or num_devices is None or (has_price and price_per_hour is None):
        raise HardwareError(
            f"{part!r} is no group of devices; write device:count or device:count@price, as "
            "h200_sxm:32@2.5"
        )
    device = find_device(name)
    devices_per_node = min(device.devices_per_node, num_devices)
    num_nodes, rest_devices = divmod(num_devices, devices_per_node)
    if rest_devices:
        raise HardwareError(
            f"{part!r} does not fill its nodes of {devices_per_node}; write "
            f"{num_devices - rest_devices} or {num_devices - rest_devices + devices_per_node}"
        )
    return NodeGroup(
        name=device.name,
        device=device,
        num_nodes=num_nodes,
        devices_per_node=devices_per_node,
        price_per_hour=price_per_hour,
    )


def _read_group(section: Section, own: dict[str, DeviceSpec], path: Path) -> NodeGroup:
    device = _device(section.take("device", TEXT), own, path, section)
    group = NodeGroup(
        name=section.take("name", TEXT),
        device=device,
        num_nodes=section.take("nodes", COUNT),
        devices_per_node=section.get("devices_per_node", COUNT, device.devices_per_node),
        memory_bytes=section.get("memory", BYTES, 0),
        price_per_hour=section.find("price_per_hour", NOT_NEGATIVE),
        nodes_per_failure_domain=section.get("nodes_per_failure_domain", COUNT, 1),
    )
    section.finish()
    return group


def _device(name: str, own: dict[str, DeviceSpec], path: Path, section: Section) -> DeviceSpec:
    if name in own:
        return own[name]
    try:
        return find_device(path.parent / name if name.endswith((".yaml", ".yml")) else name)
    except HardwareError as error:
        raise section.error(f"{section.where}.device: {error}") from error


def _read_link(section: Section) -> GroupLink:
    first, second = section.take("between", _PAIR)
    link = GroupLink(
        between=(first, second),
        bandwidth=section.take("bandwidth", BYTES_PER_SECOND),
        latency=section.take("latency", SECONDS),
    )
    section.finish()
    return link


def _group_entry(group: NodeGroup) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": group.name,
        "device": group.device.name,
        "nodes": group.num_nodes,
        "devices_per_node": group.devices_per_node,
    }
    if group.memory_bytes:
        entry["memory"] = group.memory_bytes
    if group.price_per_hour is not None:
        entry["price_per_hour"] = group.price_per_hour
    return entry | {"nodes_per_failure_domain": group.nodes_per_failure_domain}


def _link_entry(link: GroupLink) -> dict[str, object]:
    return {
        "between": list(link.between),
        "bandwidth": link.bandwidth,
        "latency": link.latency,
    }
