"""A cluster: groups of like nodes, what joins them, what fails together, what it costs."""

from dataclasses import dataclass

from moe_placement.hardware.device import DeviceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """Like nodes.

    Attributes:
        name: becomes the pools' name.
        memory_bytes: what one device may use; the device's own memory by default (0).
        price_per_hour: of one device, in the user's currency; None where the user gave none.
        nodes_per_failure_domain: nodes that fail together (a rack, a power feed).
    """

    name: str
    device: DeviceSpec
    num_nodes: int
    devices_per_node: int
    memory_bytes: int = 0
    price_per_hour: float | None = None
    nodes_per_failure_domain: int = 1

    @property
    def num_devices(self) -> int:
        return self.num_nodes * self.devices_per_node

    @property
    def usable_memory(self) -> int:
        """Bytes that one device may use."""
        return self.memory_bytes or self.device.memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLink:
    """What joins two unlike groups.

    Attributes:
        bandwidth: bytes/s of one device, one direction.
        latency: seconds of one message.
    """

    between: tuple[str, str]
    bandwidth: float
    latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """What a plan may use. Plan ranks count devices group by group, node by node."""

    groups: tuple[NodeGroup, ...]
    links: tuple[GroupLink, ...] = ()

    @property
    def num_devices(self) -> int:
        return sum(group.num_devices for group in self.groups)

    def group(self, name: str) -> NodeGroup:
        """The group of a name; KeyError if there is none."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def link(self, first: str, second: str) -> GroupLink:
        """What joins two groups: as declared, else the lesser of both networks."""
        for link in self.links:
            if set(link.between) == {first, second}:
                return link
        devices = (self.group(first).device, self.group(second).device)
        return GroupLink(
            between=(first, second),
            bandwidth=min(device.network_bandwidth for device in devices),
            latency=max(device.network_latency for device in devices),
        )
