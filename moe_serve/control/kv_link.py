"""What the way of keys and values from prefill pools to those that decode takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moe_placement.plan import PoolPlan
from moe_placement.serving.tandem import prefill_station
from moe_placement.solver.workers.bridge import link_between
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.service import Demand

from moe_serve.control.planned_workers import PlannedWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLink:
    """The slowest link that a prompt may take.

    Attributes:
        name: `from>to`, by pool.
        num_bytes: keys and values of one prompt.
        seconds: for these between one rank of each end.
        channels: pairs of ranks that send at the same time.
        left: seconds that remain of a prompt's transfer, in the mean, when its prefill has ended:
            layers leave one after the other as they are computed.
    """

    name: str
    num_bytes: float
    seconds: float
    channels: int
    left: float

    @property
    def most_rate(self) -> float:
        """Prompts per second, at most."""
        return self.channels / self.seconds

    def slowed(self, times: float) -> "KvLink":
        """As a clock has it that goes so many times as fast."""
        return replace(self, seconds=self.seconds * times, left=self.left * times)

    def waiting(self, rate: float) -> float:
        """Mean seconds that a prompt of an open stream waits for those before it (Pollaczek and
        Khinchine, all prompts alike); inf where more come than can go."""
        load = rate / self.most_rate
        return load * self.seconds / (2 * (1 - load)) if load < 1 else math.inf


def kv_link(
    context: CostContext,
    prefill: Sequence[PlannedWorker],
    decode: Sequence[PlannedWorker],
    demand: Demand,
) -> KvLink:
    """The link between workers of the two phases: as declared, else the slower network."""
    spec, cluster = context.spec, context.cluster
    names = [_names(workers) for workers in (prefill, decode)]
    links = [
        (link_between(cluster, cluster.group(one), cluster.group(other)), f"{one}>{other}")
        for one in names[0]
        for other in names[1]
    ]
    link, name = min(links, key=lambda pair: pair[0].bandwidth)
    num_bytes = spec.kv_elements_per_token * context.activation_bytes * demand.request.prompt
    seconds = link.latency + num_bytes / link.bandwidth
    share = 1 / spec.num_layers
    left = [
        max(seconds * share, seconds - _prefill_seconds(worker, demand) * (1 - share))
        for worker in prefill
    ]
    return KvLink(
        name=name,
        num_bytes=num_bytes,
        seconds=seconds,
        channels=min(_num_ranks(prefill), _num_ranks(decode)),
        left=max(left),
    )


def _names(workers: Sequence[PlannedWorker]) -> list[str]:
    return [pool.name for pool in _pools(workers)]


def _num_ranks(workers: Sequence[PlannedWorker]) -> int:
    return sum(len(pool.ranks) // pool.num_ep_groups for pool in _pools(workers))


def _pools(workers: Sequence[PlannedWorker]) -> list[PoolPlan]:
    """Those that hold keys and values."""
    return [pool for worker in workers for pool in worker.pools if pool.role != "experts"]


def _prefill_seconds(worker: PlannedWorker, demand: Demand) -> float:
    """Of one prompt that waits for none."""
    candidate = worker.candidate
    groups = candidate.kind.num_attention_groups
    station = prefill_station(
        candidate.timer.seconds, demand.request, 1, groups, demand.prompt_budget
    )
    return station.service
