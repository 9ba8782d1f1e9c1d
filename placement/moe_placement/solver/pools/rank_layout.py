"""Which devices each worker gets, and the plan ranks and pools that this makes.

Shapes: N devices of the cluster.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.layout import DeviceLayout, device_layout
from moe_placement.plan import PoolPlan, Role
from moe_placement.solver.workers.worker import Deployment, Part, Workers


@dataclass(frozen=True, slots=True)
class PlacedWorker:
    """One worker on its devices.

    Attributes:
        workers: the entry of the deployment that it is one of.
        ranks: plan ranks, part by part.
        devices: the same devices, as the cluster counts them.
    """

    workers: Workers
    ranks: tuple[int, ...]
    devices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RankLayout:
    """Attributes:
    pools: one for each part of each entry of the deployment.
    placed: all workers, in the order of their EP groups.
    device_of_rank: the cluster's number of each plan rank's device.
    """

    pools: tuple[PoolPlan, ...]
    placed: tuple[PlacedWorker, ...]
    device_of_rank: tuple[int, ...]


def lay_out(cluster: ClusterSpec, deployment: Deployment, *, spread: bool) -> RankLayout:
    """Hand out devices, the largest workers first, so that workers fill whole nodes.

    Args:
        spread: like workers are dealt over failure domains in turn, not one after the other.
    """
    layout = device_layout(cluster)
    taken = _deal(layout, deployment, spread)
    used = sorted(device for devices in taken for device in devices)
    rank_of_device = {device: rank for rank, device in enumerate(used)}
    placed = tuple(
        PlacedWorker(workers, tuple(rank_of_device[device] for device in devices), devices)
        for workers, devices in zip(_each(deployment), taken, strict=True)
    )
    return RankLayout(_pools(cluster, deployment, placed), placed, tuple(used))


def _each(deployment: Deployment) -> list[Workers]:
    return [workers for workers in deployment.workers for _ in range(workers.count)]


def _deal(layout: DeviceLayout, deployment: Deployment, spread: bool) -> list[tuple[int, ...]]:
    """Devices of each worker, part by part."""
    each = _each(deployment)
    free = {
        group: np.flatnonzero(layout.group_N == group).tolist()
        for group in deployment.devices_of_groups()
    }
    taken: list[list[int]] = [[] for _ in each]
    largest = max(len(workers.kind.parts) for workers in each)
    for place in range(largest):
        order = [n for n, workers in enumerate(each) if place < len(workers.kind.parts)]
        order.sort(key=lambda n: -each[n].kind.parts[place].num_devices)
        seen: dict[str, Counter[int]] = {}
        for number in order:
            part = each[number].kind.parts[place]
            domains = seen.setdefault(each[number].phase, Counter())
            taken[number] += _take(layout, free[part.group], part, domains if spread else None)
    return [tuple(devices) for devices in taken]


def _take(
    layout: DeviceLayout, free: list[int], part: Part, domains: Counter[int] | None
) -> list[int]:
    """The next devices that are free; where asked, from the domain that workers of this phase
    have had least, if one has room for the whole part."""
    chosen = free[: part.num_devices]
    if domains is not None:
        by_domain: dict[int, list[int]] = {}
        for device in free:
            by_domain.setdefault(int(layout.domain_N[device]), []).append(device)
        roomy = [domain for domain, held in by_domain.items() if len(held) >= part.num_devices]
        if roomy:
            least = min(roomy, key=lambda domain: (domains[domain], domain))
            chosen = by_domain[least][: part.num_devices]
        domains.update(int(layout.domain_N[device]) for device in chosen)
    gone = set(chosen)
    free[:] = [device for device in free if device not in gone]
    return chosen


def _pools(
    cluster: ClusterSpec, deployment: Deployment, placed: Sequence[PlacedWorker]
) -> tuple[PoolPlan, ...]:
    pools: list[PoolPlan] = []
    first_worker = 0
    for workers in deployment.workers:
        members = placed[first_worker : first_worker + workers.count]
        first_rank = 0
        for part in workers.kind.parts:
            last_rank = first_rank + part.num_devices
            ranks = tuple(rank for one in members for rank in one.ranks[first_rank:last_rank])
            pools.append(_pool(cluster, workers, part, ranks, first_worker))
            first_rank = last_rank
        first_worker += workers.count
    return tuple(_renamed(pools))


def _pool(
    cluster: ClusterSpec, workers: Workers, part: Part, ranks: tuple[int, ...], ep_group: int
) -> PoolPlan:
    group = cluster.groups[part.group]
    role: Role = "experts" if part.experts_only else workers.phase
    return PoolPlan(
        name=group.name,
        device=group.device.kind,
        ranks=ranks,
        role=role,
        weight_format=part.weight_format,
        tensor_parallel=part.tensor_parallel,
        ep_group=ep_group,
        num_ep_groups=workers.count,
    )


def _renamed(pools: Sequence[PoolPlan]) -> list[PoolPlan]:
    """Pools of one group get their role into their name, and a number where that is not enough."""
    groups = Counter(pool.name for pool in pools)
    roles = Counter((pool.name, pool.role) for pool in pools)
    numbers: Counter[tuple[str, str]] = Counter()
    renamed = []
    for pool in pools:
        key = (pool.name, pool.role)
        numbers[key] += 1
        suffix = f"-{pool.role}" if groups[pool.name] > 1 else ""
        suffix += f"-{numbers[key]}" if roles[key] > 1 else ""
        renamed.append(replace(pool, name=pool.name + suffix))
    return renamed
