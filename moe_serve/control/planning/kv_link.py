"""What the way of keys and values from prefill pools to those that decode takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from moe_comm.kv.number_types import dtype_of
from moe_placement.plan import PoolPlan
from moe_placement.serving.tandem import prefill_station
from moe_placement.solver.workers.bridge import link_between
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.service import Demand

from moe_serve.config.tree import LinkConfig
from moe_serve.control.planning.expert_problem import find_links
from moe_serve.control.planning.planned_workers import PlannedWorker

_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLink:
    """The slowest link that a prompt may take.

    Attributes:
        name: `from>to`, by pool.
        num_bytes: keys and values of one prompt, with each copy of what several ranks need.
        seconds: for these, between one attention group of each end.
        channels: pairs of groups between which prompts cross at the same time.
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
    declared: Sequence[LinkConfig],
    prefill: Sequence[PlannedWorker],
    decode: Sequence[PlannedWorker],
    demand: Demand,
) -> KvLink:
    """The link between workers of the two phases: as declared, else the slower network.

    Args:
        declared: what the config says of links.
    """
    spec, cluster = context.spec, context.cluster
    ways: list[tuple[float, float, str]] = []
    for one, other in product(_pools(prefill), _pools(decode)):
        crossing = _crossing(
            spec.attention.num_kv_heads, one.tensor_parallel, other.tensor_parallel
        )
        link = link_between(cluster, cluster.group(one.name), cluster.group(other.name))
        wires = [each.wire for each in find_links(declared, one.name, other.name)]
        one_copy = demand.request.prompt * _token_bytes(context, wires[0] if wires else "auto")
        slowest = link.latency + one_copy * crossing.busiest / link.bandwidth
        ways.append((slowest, one_copy * crossing.whole, f"{one.name}>{other.name}"))
    seconds, num_bytes, name = max(ways)
    share = 1 / spec.num_layers
    left = [
        max(seconds * share, seconds - _prefill_seconds(worker, demand) * (1 - share))
        for worker in prefill
    ]
    return KvLink(
        name=name,
        num_bytes=num_bytes,
        seconds=seconds,
        channels=min(_num_groups(prefill), _num_groups(decode)),
        left=max(left),
    )


def _token_bytes(context: CostContext, wire: str) -> float:
    """One token's keys and values as they cross; int8 has a scale for each head of either."""
    spec = context.spec
    width = context.activation_bytes if wire == "auto" else dtype_of(wire).itemsize
    num_scales = 2 * spec.attention.num_kv_heads * spec.num_layers if wire == "int8" else 0
    return spec.kv_elements_per_token * width + num_scales * _SCALE_BYTES


@dataclass(frozen=True, slots=True)
class _Crossing:
    """What crosses between two attention groups, in copies of a prompt's keys and values.

    Attributes:
        busiest: through the rank that sends or gets the most.
    """

    whole: float
    busiest: float


def _crossing(num_kv_heads: int, num_senders: int, num_receivers: int) -> _Crossing:
    """Each receiver gets its heads once; senders of the same heads share their receivers."""
    each = 1 / min(num_receivers, num_kv_heads)
    whole = num_receivers * each
    num_busy = min(num_senders, max(num_kv_heads, num_receivers))
    return _Crossing(whole, max(each, whole / num_busy))


def _num_groups(workers: Sequence[PlannedWorker]) -> int:
    """That hold one copy of attention each."""
    return sum(
        len(pool.ranks) // pool.num_ep_groups // pool.tensor_parallel for pool in _pools(workers)
    )


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
