"""Which workers may be best in which phase, and what each of them serves."""

from collections.abc import Mapping, Sequence

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.pools.counts import Offer
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.workers.service import rate_bound
from moe_placement.solver.workers.worker import Deployment, Phase, WorkerKind, Workers
from moe_placement.solver.workers.worker_kinds import roles_of

_PHASES: tuple[Phase, ...] = ("both", "prefill", "decode")
# Workers of a kind whose rates are worked out exactly, of those that differ in size alone.
_KEPT_SIZES = 3
_KEPT_MIXED = 12
# Prefill workers that share a queue when an integer program asks for the rate of one.
_POOLED = 4


def make_offers(
    cluster: ClusterSpec, constraints: Constraints, rates: Rates, devices_G: Sequence[int]
) -> list[Offer]:
    """What each worker that may be best serves in each phase that it may have.

    Of workers that differ in size alone, those are kept whose steps allow the most per device,
    and all that are smaller than the best, which fit into what others leave; of mixed workers,
    those whose steps allow more than their parts' would on their own, and the nearest to that.
    """
    offers = []
    for phase in _phases(constraints):
        bounds = {
            kind: rate_bound(candidate, phase, rates.demand)
            for kind, candidate in rates.candidates.items()
            if _may_do(cluster, constraints, kind, phase)
        }
        for kind in [*_kept_single(bounds), *_kept_mixed(bounds)]:
            count = max(1, min(_POOLED, most_workers(kind, devices_G)))
            rate = rates.of(kind, phase, count) / count
            if rate > 0:
                offers.append(Offer(kind, phase, rate))
    return offers


def most_workers(kind: WorkerKind, devices_G: Sequence[int]) -> int:
    """How many of a kind the devices give."""
    used = Deployment((Workers(kind, "both", 1),)).devices_of_groups()
    return min(devices_G[group] // count for group, count in used.items())


def _phases(constraints: Constraints) -> tuple[Phase, ...]:
    if constraints.is_one_worker or constraints.phases == "together":
        return _PHASES[:1]
    return _PHASES[1:] if constraints.phases == "apart" else _PHASES


def _may_do(cluster: ClusterSpec, constraints: Constraints, kind: WorkerKind, phase: Phase) -> bool:
    return all(
        part.experts_only or phase in roles_of(cluster, cluster.groups[part.group], constraints)
        for part in kind.parts
    )


def _family(kind: WorkerKind) -> object:
    """All of a kind but its sizes."""
    return tuple(
        (part.group, part.weight_format, part.tensor_parallel, part.experts_only)
        for part in kind.parts
    )


def _kept_single(bounds: Mapping[WorkerKind, float]) -> list[WorkerKind]:
    families: dict[object, list[WorkerKind]] = {}
    for kind in bounds:
        if not kind.is_mixed:
            families.setdefault(_family(kind), []).append(kind)
    kept: dict[WorkerKind, None] = {}
    for family in families.values():
        ranked = sorted(family, key=lambda kind: -bounds[kind] / kind.num_devices)
        smaller = [kind for kind in family if kind.num_devices < ranked[0].num_devices]
        kept |= dict.fromkeys([*ranked[:_KEPT_SIZES], *smaller])
    return list(kept)


def _kept_mixed(bounds: Mapping[WorkerKind, float]) -> list[WorkerKind]:
    alone: dict[int, float] = {}
    for kind, bound in bounds.items():
        if not kind.is_mixed:
            group = kind.parts[0].group
            alone[group] = max(alone.get(group, 0.0), bound / kind.num_devices)
    gains = {
        kind: bound
        / (sum(part.num_devices * alone.get(part.group, 0.0) for part in kind.parts) or 1)
        for kind, bound in bounds.items()
        if kind.is_mixed
    }
    ranked = sorted(gains, key=lambda kind: -gains[kind])
    better = [kind for kind in ranked if gains[kind] > 1]
    return better[:_KEPT_MIXED] or ranked[:1]
