"""The cheapest or smallest cluster and plan for a request rate within an objective."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moe_placement.capacity.answer import CapacityAnswer
from moe_placement.capacity.least import Purchase, in_pairs, least_of_classes
from moe_placement.capacity.pareto import pareto_points
from moe_placement.capacity.subset import subset
from moe_placement.cost.coefficients import Coefficients, load_coefficients
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.model.spec import ModelSpec
from moe_placement.serving.workload import Objective, Workload
from moe_placement.solver.constraints import ConstraintError, Constraints
from moe_placement.solver.pools.counts import NodePrice
from moe_placement.solver.pools.deployment_service import meets_demand, predict
from moe_placement.solver.pools.load_curve import load_curve
from moe_placement.solver.pools.proposals import Proposal, find_proposals
from moe_placement.solver.pools.question import Market, ask
from moe_placement.solver.pools.shortage import rate_shortage
from moe_placement.solver.solution import Alternative
from moe_placement.solver.solve import find_best, finish
from moe_placement.solver.workers.candidates import Progress
from moe_placement.solver.workers.worker import Deployment

Goal = Literal["cheapest", "smallest"]
_MOST_ALTERNATIVES = 6


def find_capacity(
    spec: ModelSpec,
    cluster: ClusterSpec,
    workload: Workload,
    *,
    goal: Goal = "cheapest",
    load: NDArray[np.float64] | None = None,
    objective: Objective | None = None,
    constraints: Constraints | None = None,
    coefficients: Coefficients | None = None,
    seed: int = 0,
    model: str = "",
    progress: Progress | None = None,
) -> CapacityAnswer:
    """The least of a cluster's devices, in whole nodes, that serves the workload's rate.

    Args:
        cluster: the most nodes of each group that may be had, with their prices.
        goal: "cheapest" by the groups' prices, "smallest" by their devices.
        progress: called with what is done, how much of it, of how much.

    Raises:
        InfeasibleError: not even all of the devices do: what is short and by how much.
        ConstraintError: a price or the rate is missing, or a constraint names what is not there.
    """
    nodes_G = _node_prices(cluster, goal)
    if workload.rate <= 0:
        raise ConstraintError("capacity is planned for a request rate; give the workload a rate")
    question = ask(
        spec,
        cluster,
        workload,
        objective or Objective(),
        constraints or Constraints(),
        coefficients or load_coefficients(),
        load,
        merges=False,
    )
    search = partial(_purchases, nodes_G=nodes_G, seed=seed, progress=progress)
    found = find_proposals(question, search, hand_out=subset, progress=progress)
    market = found[0].market
    small, deployment = subset(market, found[0].deployment)
    solution = finish(small, deployment, find_best(small, seed), seed, model)
    _tell(progress, "plan", 1, 1)
    return CapacityAnswer(
        cluster=small.question.context.cluster,
        solution=solution,
        alternatives=_alternatives(
            market, [one.found for one in found if one.market is market], goal
        ),
        pareto=pareto_points(market),
    )


def _purchases(
    market: Market, nodes_G: Sequence[NodePrice], seed: int, progress: Progress | None
) -> Iterator[Proposal[Purchase]]:
    """The least purchase of each class and group; where replicas must be spread over workers,
    with two workers of each phase, too."""
    question = market.question
    found = least_of_classes(market, nodes_G, seed, progress)
    if not found:
        served = max(map(market.rates.capacity, find_best(market, seed).values()))
        raise rate_shortage(question.context, served, question.demand.workload.rate)
    if question.constraints.spread and not question.constraints.is_one_worker:
        found += [two for one in found for two in in_pairs(one, question.group_sizes, nodes_G)]
    for one in found:
        yield Proposal(market, one.deployment, one.order, one)


def _node_prices(cluster: ClusterSpec, goal: Goal) -> list[NodePrice]:
    prices = []
    for group in cluster.groups:
        price = 1.0 if goal == "smallest" else group.price_per_hour
        if price is None:
            raise ConstraintError(
                f"group {group.name!r} has no price_per_hour; give it one, or ask for the "
                "smallest cluster"
            )
        prices.append(NodePrice(price * group.devices_per_node, group.devices_per_node))
    return prices


def _alternatives(
    market: Market, ranked: Sequence[Purchase], goal: Goal
) -> tuple[Alternative, ...]:
    distinct: dict[Deployment, Purchase] = {}
    for one in ranked:
        distinct.setdefault(one.deployment, one)
    return tuple(
        _alternative(market, ranked[0], one, goal)
        for one in list(distinct.values())[:_MOST_ALTERNATIVES]
    )


def _alternative(market: Market, chosen: Purchase, one: Purchase, goal: Goal) -> Alternative:
    demand, cluster = market.question.demand, market.question.context.cluster
    prediction = predict(one.deployment, demand.workload, market.rates)
    return Alternative(
        name=one.deployment.name(cluster),
        num_devices=one.num_devices(cluster),
        prediction=prediction,
        meets_objective=meets_demand(prediction, demand),
        cost_per_hour=one.cost_per_hour(cluster),
        loses_because="" if one is chosen else _loss(chosen, one, goal),
        curve=load_curve(one.deployment, market.rates),
    )


def _loss(chosen: Purchase, one: Purchase, goal: Goal) -> str:
    if one.price <= chosen.price:
        more = len(one.deployment.workers) - len(chosen.deployment.workers)
        kinds = "kind" if more == 1 else "kinds"
        return "costs the same" + f", with {more} more {kinds} of workers" * (more > 0)
    figures = f"{one.price:.4g} against {chosen.price:.4g}"
    if goal == "smallest":
        return f"needs {one.price / chosen.price - 1:.1%} more devices ({figures})"
    return f"costs {one.price / chosen.price - 1:.1%} more ({figures} per hour)"


def _tell(progress: Progress | None, stage: str, done: int, total: int) -> None:
    if progress is not None:
        progress(stage, done, total)
