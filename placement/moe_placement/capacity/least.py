"""The least purchase that serves a rate, for each class of plan and each group on its own."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.solver.pools.counts import NodePrice, Offer, cheapest
from moe_placement.solver.pools.question import Market
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.pools.search import CLASSES, PlanClass, undominated
from moe_placement.solver.solve import make_exact, rough_kinds
from moe_placement.solver.workers.candidates import Progress
from moe_placement.solver.workers.worker import Deployment, Phase, Workers

# Corrections of the rate asked of the integer program, whose prefill rates are estimates.
_CORRECTIONS = 4


@dataclass(frozen=True, slots=True)
class Purchase:
    """A deployment with what its whole nodes cost, in the goal's own unit."""

    deployment: Deployment
    price: float

    @property
    def order(self) -> tuple[float, int, int]:
        """Price first, then devices, then kinds of workers."""
        return self.price, self.deployment.num_devices, len(self.deployment.workers)

    def nodes(self, cluster: ClusterSpec) -> dict[int, int]:
        """Whole nodes of each group that is used."""
        return {
            index: -(-count // cluster.groups[index].devices_per_node)
            for index, count in self.deployment.devices_of_groups().items()
        }

    def num_devices(self, cluster: ClusterSpec) -> int:
        return sum(
            count * cluster.groups[index].devices_per_node
            for index, count in self.nodes(cluster).items()
        )

    def cost_per_hour(self, cluster: ClusterSpec) -> float | None:
        """In the user's currency; None where a price is missing."""
        total = 0.0
        for index, count in self.nodes(cluster).items():
            group = cluster.groups[index]
            if group.price_per_hour is None:
                return None
            total += count * group.devices_per_node * group.price_per_hour
        return total


def least_of_classes(
    market: Market,
    nodes_G: Sequence[NodePrice],
    seed: int,
    progress: Progress | None,
) -> list[Purchase]:
    """The least purchase of each class over all groups, and over each group alone."""
    if market.question.constraints.is_one_worker:
        return _single_workers(market, nodes_G)
    found: list[Purchase] = []
    questions = list(_questions(market))
    for number, (plan_class, offers) in enumerate(questions):
        purchase = _least(market, plan_class, offers, nodes_G, seed)
        if purchase is not None:
            found.append(purchase)
        if progress is not None:
            progress("clusters", number + 1, len(questions))
    return found


def _single_workers(market: Market, nodes_G: Sequence[NodePrice]) -> list[Purchase]:
    """One worker alone, which is all that the engine serves: the least of each group."""
    rates, found = market.rates, dict[int, Purchase]()
    for offer in market.offers:
        deployment = Deployment((Workers(offer.kind, offer.phase, 1),))
        purchase = Purchase(deployment, _price(deployment, nodes_G))
        known = found.get(offer.kind.parts[0].group)
        is_less = known is None or purchase.order < known.order
        if is_less and rates.capacity(deployment) >= rates.demand.workload.rate:
            found[offer.kind.parts[0].group] = purchase
    return list(found.values())


def least(
    offers: Sequence[Offer],
    devices_G: Sequence[int],
    nodes_G: Sequence[NodePrice],
    rates: Rates,
    *,
    mixed: bool = False,
) -> Purchase | None:
    """The least purchase of these offers that serves the workload's rate; None where none does."""
    wanted = rates.demand.workload.rate
    asked = wanted
    for _ in range(_CORRECTIONS):
        found = cheapest(offers, devices_G, asked, nodes_G, mixed=mixed)
        if found is None:
            return None
        served = rates.capacity(found)
        if served >= wanted:
            return _trimmed(Purchase(found, _price(found, nodes_G)), offers, nodes_G, rates)
        asked *= 1.02 * wanted / max(served, wanted / 2)
    return None


def in_pairs(
    purchase: Purchase, devices_G: Sequence[int], nodes_G: Sequence[NodePrice]
) -> Iterator[Purchase]:
    """The same with a second worker in each phase that has one alone, if devices are left."""
    counts = {(one.kind, one.phase): one.count for one in purchase.deployment.workers}
    in_phase = Counter[Phase]()
    for one in purchase.deployment.workers:
        in_phase[one.phase] += one.count
    paired = {key: 2 if in_phase[key[1]] == 1 else count for key, count in counts.items()}
    deployment = Deployment.of(paired)
    used = deployment.devices_of_groups()
    if paired != counts and all(count <= devices_G[group] for group, count in used.items()):
        yield Purchase(deployment, _price(deployment, nodes_G))


def _questions(market: Market) -> Iterator[tuple[PlanClass, list[Offer]]]:
    groups = range(len(market.question.context.cluster.groups))
    for plan_class in CLASSES:
        allowed = [offer for offer in market.offers if plan_class.allows(offer)]
        if allowed and (not plan_class.mixed or any(one.kind.is_mixed for one in allowed)):
            yield plan_class, allowed
        if not plan_class.mixed and len(groups) > 1:
            for group in groups:
                alone = [one for one in allowed if one.kind.parts[0].group == group]
                if alone:
                    yield plan_class, alone


def _least(
    market: Market,
    plan_class: PlanClass,
    offers: Sequence[Offer],
    nodes_G: Sequence[NodePrice],
    seed: int,
) -> Purchase | None:
    devices_G, rates = market.question.group_sizes, market.rates
    allowed = undominated(offers)
    purchase = least(allowed, devices_G, nodes_G, rates, mixed=plan_class.mixed)
    rough = rough_kinds([purchase.deployment], rates) if purchase else []
    if not rough:
        return purchase
    for kind in rough:
        make_exact(market, kind, seed)
    fresh = [
        Offer(one.kind, one.phase, rates.of(one.kind, one.phase, 1)) if one.kind in rough else one
        for one in allowed
    ]
    serving = [one for one in fresh if one.rate > 0]
    again = least(serving, devices_G, nodes_G, rates, mixed=plan_class.mixed)
    return again if again and not rough_kinds([again.deployment], rates) else None


def _trimmed(
    purchase: Purchase, offers: Sequence[Offer], nodes_G: Sequence[NodePrice], rates: Rates
) -> Purchase:
    """Leave out, or exchange for a smaller one, every worker without which the rest serves."""
    wanted, best = rates.demand.workload.rate, purchase
    while True:
        steps = [Purchase(one, _price(one, nodes_G)) for one in _smaller(best.deployment, offers)]
        cheaper = [step for step in steps if step.order < best.order]
        serving = [step for step in cheaper if rates.capacity(step.deployment) >= wanted]
        if not serving:
            return best
        best = min(serving, key=lambda step: step.order)


def _smaller(deployment: Deployment, offers: Sequence[Offer]) -> Iterator[Deployment]:
    for given in deployment.workers:
        counts = {(one.kind, one.phase): one.count for one in deployment.workers}
        counts[(given.kind, given.phase)] -= 1
        yield Deployment.of(counts)
        for offer in offers:
            if offer.phase == given.phase and offer.kind.num_devices < given.kind.num_devices:
                key = (offer.kind, offer.phase)
                yield Deployment.of(counts | {key: counts.get(key, 0) + 1})


def _price(deployment: Deployment, nodes_G: Sequence[NodePrice]) -> float:
    """Of whole nodes."""
    return sum(
        -(-count // nodes_G[group].num_devices) * nodes_G[group].price
        for group, count in deployment.devices_of_groups().items()
    )
