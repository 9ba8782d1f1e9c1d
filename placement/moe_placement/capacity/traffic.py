"""How much traffic a given cluster serves within an objective, and by which plan."""

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moe_placement.capacity.answer import TrafficAnswer
from moe_placement.capacity.pareto import pareto_points
from moe_placement.cost.coefficients import Coefficients, load_coefficients
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.model.spec import ModelSpec
from moe_placement.serving.workload import Objective, Workload
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.pools.deployment_service import meets_demand, predict
from moe_placement.solver.pools.proposals import find_proposals
from moe_placement.solver.pools.question import Market, ask
from moe_placement.solver.solve import MARGIN, finish, propose
from moe_placement.solver.workers.candidates import Progress
from moe_placement.solver.workers.worker import Deployment

_ROUNDS = 16


def find_traffic(
    spec: ModelSpec,
    cluster: ClusterSpec,
    workload: Workload,
    *,
    load: NDArray[np.float64] | None = None,
    objective: Objective | None = None,
    constraints: Constraints | None = None,
    coefficients: Coefficients | None = None,
    seed: int = 0,
    model: str = "",
    progress: Progress | None = None,
) -> TrafficAnswer:
    """The highest rate of requests like the workload's that a plan on all of a cluster serves.

    The workload's own rate and concurrency do not matter.

    Raises:
        InfeasibleError: nothing fits, or no request is served within the objective.
        ConstraintError: a constraint names what the cluster has not.
    """
    stream = replace(workload, rate=0.0, concurrency=0)
    question = ask(
        spec,
        cluster,
        stream,
        objective or Objective(),
        constraints or Constraints(),
        coefficients or load_coefficients(),
        load,
    )
    best = find_proposals(question, partial(propose, seed=seed), progress=progress)[0]
    rate = highest_rate(*best.market.handed_out(best.deployment))
    market = best.market.at_rate(rate)
    solution = finish(market, best.deployment, best.found, seed, model)
    return TrafficAnswer(
        request_rate=rate,
        throughput=rate * workload.output_tokens,
        solution=solution,
        pareto=pareto_points(market),
    )


def highest_rate(market: Market, deployment: Deployment) -> float:
    """By bisection on the whole deployment's prediction, down from what its workers serve."""
    demand, rates = market.question.demand, market.rates

    def holds(rate: float) -> bool:
        asked = demand.at_rate(rate)
        prediction = predict(deployment, asked, rates)
        return meets_demand(prediction, replace(demand, workload=asked))

    high = rates.capacity(deployment) * (1 - MARGIN)
    if holds(high):
        return high
    low = 0.0
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
