"""A worker: the devices of one EP group, which hold one copy of the model and step together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from moe_placement.hardware.cluster import ClusterSpec

Phase = Literal["both", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Part:
    """Like devices inside a worker.

    Attributes:
        group: index of their group in the cluster.
        experts_only: they have no attention, and no tokens of their own.
    """

    group: int
    num_devices: int
    weight_format: str
    tensor_parallel: int = 1
    experts_only: bool = False

    @property
    def num_attention_groups(self) -> int:
        return 0 if self.experts_only else self.num_devices // self.tensor_parallel


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What one worker is made of: one part, or unlike parts in one EP group.

    Attributes:
        cache_share: of the memory that unlike parts with attention have left for experts and
            cache, the share that is kept for the cache.
    """

    parts: tuple[Part, ...]
    cache_share: float = 0.0

    @property
    def is_mixed(self) -> bool:
        return len(self.parts) > 1

    @property
    def num_devices(self) -> int:
        return sum(part.num_devices for part in self.parts)

    @property
    def num_attention_groups(self) -> int:
        return sum(part.num_attention_groups for part in self.parts)

    def name(self, cluster: ClusterSpec) -> str:
        """As in `16 x hopper fp8 tp2 + 2 x host int8 experts`."""
        return " + ".join(_part_name(part, cluster) for part in self.parts)


def _part_name(part: Part, cluster: ClusterSpec) -> str:
    words = [str(part.num_devices), "x", cluster.groups[part.group].name, part.weight_format]
    if part.tensor_parallel > 1:
        words.append(f"tp{part.tensor_parallel}")
    if part.experts_only:
        words.append("experts")
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class Workers:
    """So many like workers in one phase."""

    kind: WorkerKind
    phase: Phase
    count: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """All workers of a plan."""

    workers: tuple[Workers, ...]

    @staticmethod
    def of(counts: Mapping[tuple[WorkerKind, Phase], int]) -> "Deployment":
        """The workers of these counts in one order, so that equal deployments are equal."""
        entries = [Workers(*key, count) for key, count in counts.items() if count > 0]
        return Deployment(tuple(sorted(entries, key=_order)))

    @property
    def num_devices(self) -> int:
        return sum(workers.count * workers.kind.num_devices for workers in self.workers)

    @property
    def is_apart(self) -> bool:
        return any(workers.phase != "both" for workers in self.workers)

    @property
    def is_mixed(self) -> bool:
        return any(workers.kind.is_mixed for workers in self.workers)

    def devices_of_groups(self) -> Mapping[int, int]:
        """Devices used, by group index."""
        used: dict[int, int] = {}
        for workers in self.workers:
            for part in workers.kind.parts:
                used[part.group] = used.get(part.group, 0) + workers.count * part.num_devices
        return used

    def cost_per_hour(self, cluster: ClusterSpec) -> float | None:
        """In the user's currency; None where a price is missing."""
        total = 0.0
        for index, num_devices in self.devices_of_groups().items():
            price = cluster.groups[index].price_per_hour
            if price is None:
                return None
            total += price * num_devices
        return total

    def name(self, cluster: ClusterSpec) -> str:
        """As in `prefill 2 x (16 x hopper fp8), decode 1 x (32 x ascend int8)`."""
        return ", ".join(
            f"{'together' if workers.phase == 'both' else workers.phase} "
            f"{workers.count} x ({workers.kind.name(cluster)})"
            for workers in self.workers
        )


def _order(workers: Workers) -> tuple[object, ...]:
    """Prefill before decode, then by groups, largest first."""
    parts = tuple((part.group, -part.num_devices, repr(part)) for part in workers.kind.parts)
    return (workers.phase != "both", workers.phase == "decode", parts, workers.kind.cache_share)
