"""The part of a cluster that a deployment needs, as a market of its own."""

from dataclasses import replace

from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.solver.pools.counts import Offer
from moe_placement.solver.pools.merged_cluster import unmerged
from moe_placement.solver.pools.offers import most_workers
from moe_placement.solver.pools.question import Market
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.workers.candidates import Candidates
from moe_placement.solver.workers.worker import Deployment, WorkerKind


def subset(market: Market, deployment: Deployment) -> tuple[Market, Deployment]:
    """The market on whole nodes of the used groups alone, and the deployment in its numbers."""
    question = market.question
    cluster = _needed(question.context.cluster, deployment, question.constraints.spread)
    used = sorted(deployment.devices_of_groups())
    number = {old: new for new, old in enumerate(used)}
    devices_G = [group.num_devices for group in cluster.groups]
    names: dict[WorkerKind, WorkerKind] = {}
    for kind in market.rates.candidates:
        if all(part.group in number for part in kind.parts):
            renamed = _renumbered(kind, number)
            if most_workers(renamed, devices_G):
                names[kind] = renamed
    candidates = {
        new: replace(market.rates.candidates[old], kind=new) for old, new in names.items()
    }
    small = Market(
        replace(
            question,
            clusters=unmerged(cluster),
            context=replace(question.context, cluster=cluster),
        ),
        Candidates(candidates, ()),
        Rates(candidates, question.demand),
        [
            Offer(names[offer.kind], offer.phase, offer.rate)
            for offer in market.offers
            if offer.kind in names
        ],
    )
    counts = {(names[one.kind], one.phase): one.count for one in deployment.workers}
    return small, Deployment.of(counts)


def _needed(cluster: ClusterSpec, deployment: Deployment, spread: bool) -> ClusterSpec:
    """Nodes are taken from as many failure domains as there are, where replicas are spread."""
    groups = []
    for index, count in sorted(deployment.devices_of_groups().items()):
        group = cluster.groups[index]
        num_nodes = -(-count // group.devices_per_node)
        nodes_each = group.nodes_per_failure_domain
        if spread:
            nodes_each = -(-num_nodes // -(-group.num_nodes // nodes_each))
        groups.append(replace(group, num_nodes=num_nodes, nodes_per_failure_domain=nodes_each))
    names = {group.name for group in groups}
    links = tuple(link for link in cluster.links if set(link.between) <= names)
    return ClusterSpec(groups=tuple(groups), links=links)


def _renumbered(kind: WorkerKind, number: dict[int, int]) -> WorkerKind:
    parts = tuple(replace(part, group=number[part.group]) for part in kind.parts)
    return replace(kind, parts=parts)
