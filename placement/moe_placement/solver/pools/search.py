"""The best counts of workers, class by class: together or apart, mixed or not.

An integer program on rates per worker gives the counts; a climb on the true rates, in which the
workers of a prefill queue help each other, corrects them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from moe_placement.solver.pools.counts import ENTRY_COST, Offer, most_served
from moe_placement.solver.pools.deployment_service import served
from moe_placement.solver.pools.offers import most_workers
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.workers.worker import Deployment, Phase, WorkerKind, Workers

_CLIMBS = 24
# Entries of a deployment up to which workers of kinds that it lacks are tried too.
_FEW_ENTRIES = 3
# Kinds of workers of each phase that are paired up for a closed loop.
_PAIRED = 6


@dataclass(frozen=True, slots=True)
class PlanClass:
    """A way to plan, as a person would name it."""

    name: str
    apart: bool
    mixed: bool

    def allows(self, offer: Offer) -> bool:
        return (offer.phase != "both") == self.apart and (self.mixed or not offer.kind.is_mixed)


CLASSES = (
    PlanClass("together", apart=False, mixed=False),
    PlanClass("apart", apart=True, mixed=False),
    PlanClass("together, mixed", apart=False, mixed=True),
    PlanClass("apart, mixed", apart=True, mixed=True),
)


def best_of_class(
    plan_class: PlanClass, offers: Iterable[Offer], devices_G: Sequence[int], rates: Rates
) -> Deployment | None:
    """The deployment of a class that serves the most; None where the class has none."""
    allowed = [offer for offer in offers if plan_class.allows(offer)]
    if plan_class.mixed and not any(offer.kind.is_mixed for offer in allowed):
        return None
    if rates.demand.workload.concurrency:
        return best_of(closed_loop_proposals(plan_class, allowed, devices_G), rates)
    allowed = undominated(allowed)
    start = most_served(allowed, devices_G, mixed=plan_class.mixed)
    if start is None or rates.capacity(start) == 0.0:
        return None
    best = climb(start, allowed, devices_G, rates)
    return best if best.is_mixed == plan_class.mixed else start


def undominated(offers: Sequence[Offer]) -> list[Offer]:
    """Those that a number of smaller workers of the same devices does not replace."""
    kept: list[Offer] = []
    for offer in sorted(offers, key=lambda offer: (offer.kind.num_devices, -offer.rate)):
        if offer.kind.is_mixed or not any(_replaces(small, offer) for small in kept):
            kept.append(offer)
    return kept


def _replaces(small: Offer, large: Offer) -> bool:
    if small.phase != large.phase or small.kind.is_mixed:
        return False
    one, other = small.kind.parts[0], large.kind.parts[0]
    times, rest = divmod(other.num_devices, one.num_devices)
    return one.group == other.group and rest == 0 and times * small.rate >= large.rate


def best_single_worker(rates: Rates) -> Deployment | None:
    """The one worker of both phases that serves the most."""
    singles = [Deployment((Workers(kind, "both", 1),)) for kind in rates.candidates]
    return best_of(singles, rates)


def best_of(deployments: Iterable[Deployment], rates: Rates) -> Deployment | None:
    """The one that serves the most, with the fewest devices where several do; None if none
    serves."""
    rated = [(served(one, rates), -one.num_devices, one) for one in deployments]
    rated = [entry for entry in rated if entry[0] > 0]
    return max(rated, key=lambda entry: entry[:2])[2] if rated else None


def closed_loop_proposals(
    plan_class: PlanClass, offers: Sequence[Offer], devices_G: Sequence[int]
) -> Iterable[Deployment]:
    """With so many clients and no more, the fastest workers win, however few they serve."""
    for offer in offers:
        if offer.phase == "both" and offer.kind.is_mixed == plan_class.mixed:
            most = most_workers(offer.kind, devices_G)
            for count in {min(most, 2**power) for power in range(most.bit_length() + 1)}:
                yield Deployment((Workers(offer.kind, "both", count),))
    ranked = sorted(offers, key=lambda offer: -offer.rate / offer.kind.num_devices)
    prefill = [offer for offer in ranked if offer.phase == "prefill"][:_PAIRED]
    decode = [offer for offer in ranked if offer.phase == "decode"][:_PAIRED]
    for pair in product(prefill, decode):
        proposal = most_served(pair, devices_G, mixed=plan_class.mixed)
        if proposal is not None:
            yield proposal


def climb(
    start: Deployment, offers: Sequence[Offer], devices_G: Sequence[int], rates: Rates
) -> Deployment:
    """Trade one worker for others as long as the whole is worth more."""
    best = start
    for _ in range(_CLIMBS):
        steps = _neighbours(best, offers, devices_G)
        found = max(steps, key=lambda step: worth(step, rates), default=best)
        if worth(found, rates) <= worth(best, rates) * (1 + 1e-9):
            return best
        best = found
    return best


def worth(deployment: Deployment, rates: Rates) -> float:
    """What it serves, less a little for each kind of worker beyond the first."""
    return rates.capacity(deployment) * (1 - ENTRY_COST * (len(deployment.workers) - 1))


def _neighbours(
    deployment: Deployment, offers: Sequence[Offer], devices_G: Sequence[int]
) -> Iterable[Deployment]:
    """Deployments with one worker more, for which workers of another entry may have to go."""
    known = {(workers.kind, workers.phase) for workers in deployment.workers}
    few = len(known) <= _FEW_ENTRIES
    wanted = [(offer.kind, offer.phase) for offer in offers] if few else []
    for kind, phase in dict.fromkeys([*known, *wanted]):
        for given in (None, *deployment.workers):
            if given is None or (given.kind, given.phase) != (kind, phase):
                changed = _trade(deployment, given, kind, phase, devices_G)
                if changed is not None:
                    yield changed


def _trade(
    deployment: Deployment,
    given: Workers | None,
    kind: WorkerKind,
    phase: Phase,
    devices_G: Sequence[int],
) -> Deployment | None:
    """One worker of a kind more, for as few of the given ones as make room."""
    counts = {(workers.kind, workers.phase): workers.count for workers in deployment.workers}
    counts[(kind, phase)] = counts.get((kind, phase), 0) + 1
    for _ in range(given.count + 1 if given else 1):
        changed = Deployment.of(counts)
        used = changed.devices_of_groups()
        if all(count <= devices_G[group] for group, count in used.items()):
            return changed
        if given is None:
            return None
        counts[(given.kind, given.phase)] -= 1
    return None
