"""Which workers a cluster could be cut into: sizes, formats, attention degrees, mixtures."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

from moe_placement.hardware.cluster import ClusterSpec, NodeGroup
from moe_placement.plan import Role
from moe_placement.solver.constraints import ENGINE_FORMATS, Constraints
from moe_placement.solver.workers.worker import Part, WorkerKind

_EIGHT_BITS = ("fp8", "int8")
# Whole nodes that one worker may have; beyond, the sizes of serving systems are sparse.
_NODES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 18, 20, 24, 32, 40, 48, 64)
# Unlike groups in one EP group, and equal shares that groups are cut into to mix them.
_MOST_GROUPS = 3
# Kinds of devices up to which three of them are mixed, too.
_FEW_DEVICES = 4
_MIXED_COUNTS = (1, 2, 4, 8, 16)
_CACHE_SHARES = (0.15, 0.4, 0.7)


def formats_of(group: NodeGroup, constraints: Constraints) -> tuple[str, ...]:
    """Weight formats that a group may have, the narrowest first."""
    if group.name in constraints.formats:
        return constraints.formats[group.name]
    if constraints.runnable_by == "engine":
        return ENGINE_FORMATS[:1]
    narrow = [name for name in _EIGHT_BITS if name in group.device.flops][:1]
    return (*narrow, "bfloat16")


def roles_of(cluster: ClusterSpec, group: NodeGroup, constraints: Constraints) -> tuple[Role, ...]:
    """Roles that a group may have."""
    if constraints.runnable_by == "engine":
        return ("both",)
    if group.name in constraints.roles:
        return constraints.roles[group.name]
    is_host = group.device.kind == "cpu"
    if is_host and any(other.device.kind != "cpu" for other in cluster.groups):
        return ("experts",)
    return ("both", "prefill", "decode", "experts")


def single_kinds(cluster: ClusterSpec, constraints: Constraints) -> Iterator[WorkerKind]:
    """Workers of one group each."""
    for index, group in enumerate(cluster.groups):
        if constraints.mixing == "always" or _experts_only(cluster, group, constraints):
            continue
        sizes = [s for s in _sizes(group) if s <= constraints.max_worker_devices]
        for size, form in product(sizes, formats_of(group, constraints)):
            for degree in degrees_of(group, size, constraints):
                yield WorkerKind((Part(index, size, form, degree),))


def mixed_kinds(cluster: ClusterSpec, constraints: Constraints) -> Iterator[WorkerKind]:
    """Workers of unlike groups, each of which gives the same share of its nodes."""
    if constraints.mixing == "never":
        return
    for chosen in _combinations(cluster):
        if _mixable(cluster, chosen, constraints):
            yield from _mixtures(cluster, chosen, constraints)


def _combinations(cluster: ClusterSpec) -> Iterator[tuple[int, ...]]:
    """Unlike groups, one for each kind of device, and those that a link of their own joins."""
    lone = _one_of_each_device(cluster)
    most = _MOST_GROUPS if len(lone) <= _FEW_DEVICES else 2
    names = [group.name for group in cluster.groups]
    linked = [tuple(sorted(map(names.index, link.between))) for link in cluster.links]
    sizes = range(2, min(most, len(lone)) + 1)
    unlike = [chosen for size in sizes for chosen in combinations(lone, size)]
    yield from dict.fromkeys([*unlike, *linked])


def _one_of_each_device(cluster: ClusterSpec) -> list[int]:
    """The largest group of each device, in the cluster's order."""
    groups = cluster.groups
    largest: dict[str, int] = {}
    for index, group in enumerate(groups):
        known = largest.get(group.device.name)
        if known is None or group.num_devices > groups[known].num_devices:
            largest[group.device.name] = index
    return sorted(largest.values())


def degrees_of(group: NodeGroup, size: int, constraints: Constraints) -> tuple[int, ...]:
    """Tensor-parallel degrees of attention: within a node, and a divisor of the worker."""
    if constraints.runnable_by == "engine":
        return (1,)
    return tuple(
        degree
        for degree in constraints.tensor_parallel
        if size % degree == 0 and group.devices_per_node % degree == 0
    )


def _sizes(group: NodeGroup) -> list[int]:
    inside = [n for n in range(1, group.devices_per_node) if _is_even_cut(n, group)]
    nodes = [count for count in (*_NODES, group.num_nodes) if count <= group.num_nodes]
    return sorted({*inside, *(count * group.devices_per_node for count in nodes)})


def _is_even_cut(size: int, group: NodeGroup) -> bool:
    return group.devices_per_node % size == 0 and size & (size - 1) == 0


def _experts_only(cluster: ClusterSpec, group: NodeGroup, constraints: Constraints) -> bool:
    return set(roles_of(cluster, group, constraints)) <= {"experts"}


def _mixable(cluster: ClusterSpec, chosen: Sequence[int], constraints: Constraints) -> bool:
    groups = [cluster.groups[index] for index in chosen]
    if all(_experts_only(cluster, group, constraints) for group in groups):
        return False
    if constraints.runnable_by == "any":
        return True
    formats = set.intersection(*(set(formats_of(group, constraints)) for group in groups))
    return len({group.device.kind for group in groups}) == 1 and bool(formats)


def _mixtures(
    cluster: ClusterSpec, chosen: Sequence[int], constraints: Constraints
) -> Iterator[WorkerKind]:
    """In the narrowest formats: whatever fits in wider ones fits and steps faster in these."""
    groups = [cluster.groups[index] for index in chosen]
    forms = _common_formats(groups, constraints)
    seen = set()
    for count in _MIXED_COUNTS:
        sizes = tuple(group.num_nodes // count * group.devices_per_node for group in groups)
        if min(sizes) == 0 or sum(sizes) > constraints.max_worker_devices or sizes in seen:
            continue
        seen.add(sizes)
        options = product(
            _expert_pools(cluster, chosen, constraints),
            _few_degrees(groups, sizes, constraints),
            _CACHE_SHARES,
        )
        for hosts, degrees, share in options:
            parts = zip(chosen, sizes, forms, degrees, hosts, strict=True)
            yield WorkerKind(tuple(_part(*part) for part in parts), share)


def _part(group: int, size: int, form: str, degree: int, experts_only: bool) -> Part:
    return Part(group, size, form, 1 if experts_only else degree, experts_only)


def _few_degrees(
    groups: Sequence[NodeGroup], sizes: Sequence[int], constraints: Constraints
) -> list[tuple[int, ...]]:
    """Attention whole on every device, or split as far as each group can."""
    allowed = [degrees_of(*pair, constraints) for pair in zip(groups, sizes, strict=True)]
    least = tuple(min(degrees) for degrees in allowed)
    most = tuple(max(degrees) for degrees in allowed)
    return list(dict.fromkeys((least, most)))


def _common_formats(groups: Sequence[NodeGroup], constraints: Constraints) -> list[str]:
    formats = [formats_of(group, constraints) for group in groups]
    if constraints.runnable_by == "any":
        return [names[0] for names in formats]
    shared = next(name for name in formats[0] if all(name in names for names in formats))
    return [shared] * len(groups)


def _expert_pools(
    cluster: ClusterSpec, chosen: Sequence[int], constraints: Constraints
) -> Iterator[tuple[bool, ...]]:
    """Which of the groups hold experts alone: those that must, and at most one besides."""
    options, must = [], 0
    for index in chosen:
        roles = roles_of(cluster, cluster.groups[index], constraints)
        options.append([only for only in (False, True) if _may_be(roles, only)])
        must += not _may_be(roles, False)
    for hosts in product(*options):
        if not all(hosts) and sum(hosts) <= must + 1:
            yield hosts


def _may_be(roles: Sequence[Role], experts_only: bool) -> bool:
    return "experts" in roles if experts_only else set(roles) != {"experts"}
