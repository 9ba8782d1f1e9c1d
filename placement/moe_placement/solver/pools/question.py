"""One planning question: model, cluster, workload, objective and constraints, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moe_placement.cost.coefficients import Coefficients
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.model.spec import ModelSpec
from moe_placement.serving.workload import Objective, Workload
from moe_placement.solver.constraints import ConstraintError, Constraints
from moe_placement.solver.pools.counts import Offer
from moe_placement.solver.pools.merged_cluster import MergedCluster, merge, unmerged
from moe_placement.solver.pools.offers import make_offers
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.pools.shortage import (
    memory_shortage,
    service_shortage,
    spread_shortage,
)
from moe_placement.solver.workers.bridge import link_between
from moe_placement.solver.workers.candidates import Candidates, Progress, find_candidates
from moe_placement.solver.workers.part_cost import CostContext
from moe_placement.solver.workers.placing import ExpertLoad
from moe_placement.solver.workers.service import Demand
from moe_placement.solver.workers.worker import Deployment


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """Attributes:
    clusters: as given, and as the search sees it.
    context: costs on the cluster that the search sees.
    """

    clusters: MergedCluster
    context: CostContext
    demand: Demand
    constraints: Constraints
    load: ExpertLoad

    @property
    def group_sizes(self) -> list[int]:
        """Devices of each group."""
        return [group.num_devices for group in self.context.cluster.groups]


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """What can be had on a cluster: the workers that fit and what each of them serves."""

    question: Question
    found: Candidates
    rates: Rates
    offers: Sequence[Offer]

    def placed_offers(self) -> list[Offer]:
        """Offers of like devices, and of those mixed workers whose experts are placed already."""
        return [one for one in self.live_offers() if self.rates.candidates[one.kind].is_exact]

    def live_offers(self) -> list[Offer]:
        """The offers with what mixed workers are known to serve by now."""
        live = [
            replace(one, rate=self.rates.of(one.kind, one.phase, 1)) if one.kind.is_mixed else one
            for one in self.offers
        ]
        return [one for one in live if one.rate > 0]

    def at_rate(self, rate: float) -> "Market":
        """The same market under an open stream of another rate."""
        rates = self.rates.at_rate(rate)
        return replace(self, question=replace(self.question, demand=rates.demand), rates=rates)

    def handed_out(self, deployment: Deployment) -> "tuple[Market, Deployment]":
        """The same deployment on the cluster as it was given, group by group."""
        clusters = self.question.clusters
        whole = clusters.distribute(deployment)
        for kind in dict.fromkeys(workers.kind for workers in whole.workers):
            self.rates.adopt(clusters.as_merged(kind), kind)
        context = replace(self.question.context, cluster=clusters.whole)
        return replace(self, question=replace(self.question, context=context)), whole


def ask(
    spec: ModelSpec,
    cluster: ClusterSpec,
    workload: Workload,
    objective: Objective,
    constraints: Constraints,
    coefficients: Coefficients,
    load: NDArray[np.float64] | None,
    *,
    merges: bool = True,
) -> Question:
    """Check and put together.

    Args:
        merges: groups that differ in name alone are searched as one.

    Raises:
        ConstraintError: a constraint names what the cluster has not, or the load is of another
            model.
    """
    constraints.check(cluster)
    shape = (len(spec.moe_layers), spec.num_experts)
    if load is not None and load.shape != shape:
        raise ConstraintError(
            f"the load is of {load.shape[0]} layers x {load.shape[1]} experts, "
            f"{spec.architecture} has {shape[0]} x {shape[1]}; give a load of this model"
        )
    if load is not None and not (load.sum(1) > 0).all():
        layer = int(np.argmin(load.sum(1) > 0))
        raise ConstraintError(f"row {layer} of the load has no rows at all; leave the load out")
    clusters = merge(cluster, constraints) if merges else unmerged(cluster)
    context = CostContext(spec, clusters.merged, coefficients, constraints.activation_bytes)
    demand = Demand(
        workload,
        objective,
        float(constraints.max_tokens_per_step),
        _transfer_seconds(context),
    )
    return Question(
        clusters,
        context,
        demand,
        constraints,
        ExpertLoad.of(load, *shape, distinct=constraints.old is not None),
    )


def open_market(
    question: Question,
    *,
    copies: int = 1,
    paired: bool = False,
    progress: Progress | None = None,
) -> Market:
    """Find the workers that fit, and what they serve.

    Args:
        copies: of all experts that a worker must have room for.
        paired: only workers that have room for each expert in two failure domains.

    Raises:
        InfeasibleError: none fits, or none serves a request within the objective.
    """
    context, constraints = question.context, question.constraints
    found = find_candidates(
        context,
        question.demand.workload,
        question.demand.request,
        question.load,
        constraints,
        copies=copies,
        paired=paired,
        progress=progress,
    )
    if paired and not found.by_kind and not found.misfits:
        raise spread_shortage(context)
    if not found.by_kind:
        raise memory_shortage(context, found, constraints)
    rates = Rates(found.by_kind, question.demand)
    offers = make_offers(context.cluster, constraints, rates, question.group_sizes)
    if not offers:
        raise service_shortage(context, rates)
    return Market(question, found, rates, offers)


def _transfer_seconds(context: CostContext) -> float:
    """Of one prompt token's cache, over the slowest link that it may have to take."""
    groups, spec = context.cluster.groups, context.spec
    token = spec.kv_elements_per_token * context.activation_bytes
    slowest = min(
        link_between(context.cluster, one, other).bandwidth for one in groups for other in groups
    )
    return token / slowest
