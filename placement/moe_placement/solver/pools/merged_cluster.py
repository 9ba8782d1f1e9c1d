"""Groups that differ in name alone are one to the search, and are told apart again afterwards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moe_placement.hardware.cluster import ClusterSpec, NodeGroup
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.workers.worker import Deployment, Part, Phase, WorkerKind
from moe_placement.solver.workers.worker_kinds import formats_of, roles_of


@dataclass(frozen=True, slots=True)
class MergedCluster:
    """Attributes:
    whole: the cluster as it was given.
    merged: what the search sees.
    members: the groups of the whole that each merged group stands for.
    """

    whole: ClusterSpec
    merged: ClusterSpec
    members: tuple[tuple[int, ...], ...]

    def distribute(self, deployment: Deployment) -> Deployment:
        """The same workers, each within one group; a worker that no group has room for goes.

        Large workers are handed out first, so that small ones fill what those leave.
        """
        if len(self.whole.groups) == len(self.merged.groups):
            return deployment
        free = [group.num_devices for group in self.whole.groups]
        counts: Counter[tuple[WorkerKind, Phase]] = Counter()
        for workers in sorted(deployment.workers, key=lambda one: -one.kind.num_devices):
            for _ in range(workers.count):
                kind = self._place(workers.kind, free)
                if kind is not None:
                    counts[(kind, workers.phase)] += 1
        return Deployment.of(counts)

    def as_merged(self, kind: WorkerKind) -> WorkerKind:
        """The kind that the search knew it as."""
        merged = {group: index for index, held in enumerate(self.members) for group in held}
        parts = tuple(replace(part, group=merged[part.group]) for part in kind.parts)
        return replace(kind, parts=parts)

    def _place(self, kind: WorkerKind, free: list[int]) -> WorkerKind | None:
        parts: list[Part] = []
        for part in kind.parts:
            roomy = [g for g in self.members[part.group] if free[g] >= part.num_devices]
            if not roomy:
                return None
            parts.append(replace(part, group=roomy[0]))
        for part in parts:
            free[part.group] -= part.num_devices
        return replace(kind, parts=tuple(parts))


def merge(cluster: ClusterSpec, constraints: Constraints) -> MergedCluster:
    """Join groups of the same devices under the same terms, unless a link names them."""
    linked = {name for link in cluster.links for name in link.between}
    alike: dict[object, list[int]] = {}
    for index, group in enumerate(cluster.groups):
        alike.setdefault(_terms(cluster, group, constraints, linked), []).append(index)
    members = tuple(tuple(indices) for indices in alike.values())
    groups = tuple(_joined([cluster.groups[index] for index in indices]) for indices in members)
    return MergedCluster(cluster, ClusterSpec(groups=groups, links=cluster.links), members)


def unmerged(cluster: ClusterSpec) -> MergedCluster:
    """Every group for itself."""
    return MergedCluster(cluster, cluster, tuple((i,) for i in range(len(cluster.groups))))


def _terms(
    cluster: ClusterSpec, group: NodeGroup, constraints: Constraints, linked: set[str]
) -> object:
    """What must be equal for two groups to be one."""
    if group.name in linked:
        return group.name
    return (
        repr(group.device),
        group.devices_per_node,
        group.memory_bytes,
        group.price_per_hour,
        group.nodes_per_failure_domain,
        formats_of(group, constraints),
        roles_of(cluster, group, constraints),
    )


def _joined(groups: Sequence[NodeGroup]) -> NodeGroup:
    return replace(groups[0], num_nodes=sum(group.num_nodes for group in groups))
