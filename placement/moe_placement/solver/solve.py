"""One plan for a whole cluster: pools, phases, formats, parallelism, experts, and why.

Memory first: workers that do not fit are never looked at. What those that fit serve comes from
the step model, or from a placement where devices are unlike; counts of workers come from an
integer program; experts are then placed worker by worker on the true cost.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moe_placement.cost.coefficients import Coefficients, load_coefficients
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.model.spec import ModelSpec
from moe_placement.serving.workload import Objective, Workload
from moe_placement.solver.constraints import Constraints
from moe_placement.solver.pools.counts import Offer
from moe_placement.solver.pools.deployment_service import served
from moe_placement.solver.pools.explain import explain
from moe_placement.solver.pools.plan_builder import PlanBuilder
from moe_placement.solver.pools.proposals import Proposal, find_proposals
from moe_placement.solver.pools.question import Market, ask
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.pools.search import (
    CLASSES,
    PlanClass,
    best_of_class,
    best_single_worker,
    worth,
)
from moe_placement.solver.pools.shortage import rate_shortage, service_shortage
from moe_placement.solver.solution import Solution
from moe_placement.solver.workers.candidate import place_candidate
from moe_placement.solver.workers.candidates import Progress
from moe_placement.solver.workers.expert_placer import ExpertPlacer
from moe_placement.solver.workers.service import batch_bound
from moe_placement.solver.workers.worker import Deployment, WorkerKind

# Times that a mixed worker's placement may turn out slower than its split promised.
_MOST_ROUNDS = 6
# Distinct layers that a mixed worker is timed by.
_SAMPLED_LAYERS = 3
# What is promised stays a little below the point where the objective is missed.
MARGIN = 1e-3
ByClass = dict[PlanClass, Deployment]


def solve(
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
) -> Solution:
    """The plan that serves the most within the objective, with its reasons.

    For an open stream that is the plan with the highest rate, which must be at least the
    workload's; for a closed loop, the one whose clients get the most. A workload with neither
    rate nor concurrency is taken to come as fast as the plan can serve it.

    Args:
        load: share of each MoE layer's rows that each expert has, (layers, experts); None is even.
        model: the name in the plan; by default the architecture.
        progress: called with what is done, how much of it, of how much.

    Raises:
        InfeasibleError: nothing fits, meets the objective or serves the rate: what is short and
            by how much.
        ConstraintError: a constraint or the load names what is not there.
    """
    constraints = constraints or Constraints()
    question = ask(
        spec,
        cluster,
        workload,
        objective or Objective(),
        constraints,
        coefficients or load_coefficients(),
        load,
    )
    best = find_proposals(question, partial(propose, seed=seed), progress=progress)[0]
    return finish(best.market, best.deployment, best.found, seed, model)


def propose(market: Market, seed: int) -> Iterator[Proposal[ByClass]]:
    """The best deployment of each class; that comes first which is worth the most."""
    by_class = find_best(market, seed)
    for deployment in by_class.values():
        yield Proposal(market, deployment, (-_value(deployment, market.rates),), by_class)


def finish(market: Market, best: Deployment, by_class: ByClass, seed: int, model: str) -> Solution:
    """Place a deployment's experts and give the reasons.

    Raises:
        InfeasibleError: it serves less than the workload's rate.
    """
    whole, handed = market.handed_out(best)
    workload = market.question.demand.workload
    most, wanted = served(handed, whole.rates), workload.rate
    if not wanted and not workload.concurrency:
        nearly = most * (1 - MARGIN)
        market, whole = market.at_rate(nearly), whole.at_rate(nearly)
    if wanted and most < wanted:
        raise rate_shortage(whole.question.context, most, wanted)
    tokens = {
        one.kind: full_step_tokens(whole, one.kind, prefill=one.phase == "prefill")
        for one in handed.workers
    }
    context = whole.question.context
    placer = expert_placer(whole, tokens, seed)
    name = model or context.spec.architecture
    built = PlanBuilder(context, whole.question.constraints, placer, name).build(handed)
    return explain(market, best, (whole, handed, built), by_class)


def find_best(market: Market, seed: int) -> ByClass:
    """The best deployment of each class, mixed workers timed by a placement of their experts."""
    constraints = market.question.constraints
    if constraints.is_one_worker:
        one = best_single_worker(market.rates)
        if one is None:
            raise service_shortage(market.question.context, market.rates)
        return {CLASSES[2 if one.is_mixed else 0]: one}
    for _ in range(_MOST_ROUNDS):
        by_class = _best_of_classes(market, market.live_offers())
        rough = rough_kinds(by_class.values(), market.rates)
        for kind in rough:
            make_exact(market, kind, seed)
        if not rough:
            break
    else:
        by_class = _best_of_classes(market, market.placed_offers())
    if not by_class:
        served_phases = {offer.phase for offer in market.offers}
        raise service_shortage(market.question.context, market.rates, served_phases)
    return by_class


def _value(deployment: Deployment, rates: Rates) -> float:
    """What a deployment is worth; in a closed loop, what its clients get."""
    is_closed = bool(rates.demand.workload.concurrency)
    return served(deployment, rates) if is_closed else worth(deployment, rates)


def expert_placer(market: Market, tokens: Mapping[WorkerKind, float], seed: int) -> ExpertPlacer:
    question = market.question
    return ExpertPlacer(
        question.context,
        question.constraints,
        question.demand.workload,
        question.load,
        market.rates.candidates,
        tokens,
        seed,
    )


def full_step_tokens(market: Market, kind: WorkerKind, *, prefill: bool) -> float:
    """Tokens of a step that a worker's experts are placed for."""
    demand, candidate = market.question.demand, market.rates.candidates[kind]
    request = demand.request
    if prefill:
        return kind.num_attention_groups * min(request.prompt, demand.prompt_budget)
    batch = batch_bound(candidate, "decode", demand)
    return max(1.0, batch) * request.tokens_per_step


def _best_of_classes(market: Market, offers: Sequence[Offer]) -> ByClass:
    found: ByClass = {}
    for plan_class in CLASSES:
        best = best_of_class(plan_class, offers, market.question.group_sizes, market.rates)
        if best is not None:
            found[plan_class] = best
    if market.question.constraints.mixing == "always":
        return {key: one for key, one in found.items() if key.mixed}
    return found


def rough_kinds(deployments: Iterable[Deployment], rates: Rates) -> list[WorkerKind]:
    """Mixed workers whose experts are not placed yet."""
    kinds = (workers.kind for one in deployments for workers in one.workers)
    return [kind for kind in dict.fromkeys(kinds) if not rates.candidates[kind].is_exact]


def make_exact(market: Market, kind: WorkerKind, seed: int) -> None:
    """Replace a worker's split over parts by a placement on its ranks."""
    question, rates = market.question, market.rates
    sampled = question.load.sample(_SAMPLED_LAYERS)
    tokens = full_step_tokens(market, kind, prefill=False)
    result = expert_placer(market, {kind: tokens}, seed).place_split(kind, sampled, tokens)
    rates.replace(
        place_candidate(question.context, rates.candidates[kind], sampled, result.placement)
    )
