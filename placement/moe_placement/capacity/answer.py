"""What capacity planning answers: a cluster, its plan, what else was looked at, and trade-offs."""

from dataclasses import dataclass

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.solver.solution import Alternative, Solution


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoPoint:
    """A way to serve that no other beats in both.

    Attributes:
        throughput_per_device: output tokens per second of one device.
        speed: output tokens per second that one user sees, 1 / TPOT.
        configuration: the workers, by name.
    """

    throughput_per_device: float
    speed: float
    configuration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityAnswer:
    """The least cluster that serves a workload within its objective.

    Attributes:
        cluster: only what is needed of each group, in whole nodes.
        solution: the plan on that cluster.
        alternatives: the best few clusters, the chosen one first; each `loses_because` is in the
            goal's own terms.
        pareto: over all devices that were offered, not only those chosen; by falling speed.
    """

    cluster: ClusterSpec
    solution: Solution
    alternatives: tuple[Alternative, ...]
    pareto: tuple[ParetoPoint, ...]

    @property
    def num_devices(self) -> int:
        return self.cluster.num_devices

    @property
    def cost_per_hour(self) -> float | None:
        """In the user's currency; None where a price is missing."""
        prices = [group.price_per_hour for group in self.cluster.groups]
        if any(price is None for price in prices):
            return None
        return sum(
            group.num_devices * (price or 0.0)
            for group, price in zip(self.cluster.groups, prices, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficAnswer:
    """What a cluster serves at most within an objective.

    Attributes:
        request_rate: requests per second.
        throughput: output tokens per second.
        solution: the plan at that rate.
        pareto: as in CapacityAnswer.
    """

    request_rate: float
    throughput: float
    solution: Solution
    pareto: tuple[ParetoPoint, ...]
