"""A solution from a built plan: predictions, the bound, choices with reasons, alternatives."""

from collections.abc import Iterable, Mapping, Sequence

from moe_placement.serving.workload import Prediction
from moe_placement.solver.pools.deployment_service import meets_demand, predict, served
from moe_placement.solver.pools.load_curve import load_curve
from moe_placement.solver.pools.plan_builder import BuiltPlan
from moe_placement.solver.pools.question import Market
from moe_placement.solver.pools.reasons import (
    binding_constraint,
    class_choice,
    decoders,
    loses_because,
    unused_groups,
)
from moe_placement.solver.pools.search import PlanClass
from moe_placement.solver.pools.variants import variants
from moe_placement.solver.solution import Alternative, Choice, Solution
from moe_placement.solver.workers.candidate import other_step_seconds
from moe_placement.solver.workers.expert_placer import ReplicaChoice
from moe_placement.solver.workers.worker import Deployment

_MOST_ALTERNATIVES = 6
_WORTH_A_FIGURE = 1e-3


def explain(
    market: Market,
    best: Deployment,
    handed: tuple[Market, Deployment, BuiltPlan],
    by_class: Mapping[PlanClass, Deployment],
) -> Solution:
    """Put everything that is known about a plan into one answer.

    Args:
        handed: the best deployment on the cluster as it was given, and its plan.
    """
    whole, given, built = handed
    others = variants(market, best)
    rates, demand = market.rates, market.question.demand
    prediction = predict(given, demand.workload, whole.rates)
    step, bound = _step(whole, given, built, prediction)
    choices = (
        *_class_choices(market, best, by_class),
        *(choice for choice, _ in others),
        *_replica_choice(whole, given, built),
        *_unused_choices(whole, given),
    )
    rivals = [*by_class.values(), *(one for _, one in others if one is not None)]
    experts = built.choices[0].result.binding if built.choices else ""
    return Solution(
        plan=built.plan,
        prediction=prediction,
        step_seconds=step,
        lower_bound=bound,
        binding=binding_constraint(best, rates, experts),
        choices=choices,
        alternatives=(_alternative(whole, given, ""), *alternatives(market, best, rivals)),
        memories=built.memories,
    )


def alternatives(
    market: Market, best: Deployment, rivals: Iterable[Deployment]
) -> tuple[Alternative, ...]:
    """The best few deployments beside the chosen one: first those of other classes."""
    rates = market.rates
    others = [one for one in dict.fromkeys(rivals) if one != best][: _MOST_ALTERNATIVES - 1]
    ranked = sorted(others, key=lambda one: -served(one, rates))
    return tuple(_alternative(market, one, loses_because(one, best, rates)) for one in ranked)


def _alternative(market: Market, one: Deployment, loses: str) -> Alternative:
    demand, cluster = market.question.demand, market.question.context.cluster
    prediction = predict(one, demand.workload, market.rates)
    return Alternative(
        name=one.name(cluster),
        num_devices=one.num_devices,
        prediction=prediction,
        meets_objective=meets_demand(prediction, demand),
        cost_per_hour=one.cost_per_hour(cluster),
        loses_because=loses,
        curve=load_curve(one, market.rates),
    )


def _step(
    market: Market, best: Deployment, built: BuiltPlan, prediction: Prediction
) -> tuple[float, float]:
    """Seconds of a decode step of the largest decode workers at the workload, and the bound."""
    workers = decoders(best)[0]
    candidate = market.rates.candidates[workers.kind]
    request = market.question.demand.request
    share = market.rates.of(workers.kind, workers.phase, workers.count)
    total = sum(market.rates.of(each.kind, each.phase, each.count) for each in decoders(best))
    rate = prediction.request_rate * share / total / workers.count
    batch = rate * request.steps * prediction.tpot * request.tokens_per_step
    batch = min(max(1.0, batch), candidate.full_batch(request))
    other = other_step_seconds(candidate, request.step(0.0, batch))
    if not built.choices:
        return other, other
    number = [placed.workers for placed in built.layout.placed].index(workers)
    result = built.choices[number].result
    times_L = market.question.load.times_L
    return (
        other + float(result.layer_seconds_L @ times_L),
        other + float(result.layer_bound_L @ times_L),
    )


def _class_choices(
    market: Market, best: Deployment, by_class: Mapping[PlanClass, Deployment]
) -> list[Choice]:
    rates, constraints = market.rates, market.question.constraints
    apart = [one for key, one in by_class.items() if key.apart != best.is_apart]
    mixed = [one for key, one in by_class.items() if key.mixed != best.is_mixed]
    names = ("together", "apart") if not best.is_apart else ("apart", "together")
    asked = constraints.phases != "any" or constraints.is_one_worker
    missing = "as the constraints ask" if asked else f"no workers that serve {names[1]} fit"
    choices = [
        class_choice("phases", (names[0], best), (names[1], _most(apart, market)), rates, missing)
    ]
    if len(market.question.context.cluster.groups) > 1:
        names = ("unmixed", "mixed") if not best.is_mixed else ("mixed", "unmixed")
        asked = constraints.mixing != "any"
        missing = "as the constraints ask" if asked else f"no {names[1]} workers fit and serve"
        choices.append(
            class_choice(
                "EP groups", (names[0], best), (names[1], _most(mixed, market)), rates, missing
            )
        )
    return choices


def _most(deployments: Sequence[Deployment], market: Market) -> Deployment | None:
    return max(deployments, key=lambda one: served(one, market.rates), default=None)


def _replica_choice(market: Market, best: Deployment, built: BuiltPlan) -> list[Choice]:
    """Of the largest decode workers."""
    if not built.choices:
        return []
    workers = decoders(best)[0]
    number = [placed.workers for placed in built.layout.placed].index(workers)
    return [_replicas(built.choices[number], market)]


def _replicas(choice: ReplicaChoice, market: Market) -> Choice:
    num_experts = market.question.context.spec.num_experts
    chosen = f"{choice.num_slots} slots for {num_experts} experts"
    if choice.other_seconds is None:
        reason = "no more replicas are allowed or have room"
        return Choice(subject="replicas", chosen=chosen, reason=reason)
    worse = choice.other_seconds / choice.seconds - 1
    figures = f"{worse:.1%} slower in the experts' part of a step"
    if choice.num_slots > num_experts:
        return Choice(subject="replicas", chosen=chosen, reason=f"one replica each is {figures}")
    reason = "replicas change the experts' part of a step by less than 0.1%"
    if worse >= _WORTH_A_FIGURE:
        reason = f"replicas are {figures}: each is one more expert to read"
    return Choice(subject="replicas", chosen=f"none: {chosen}", reason=reason)


def _unused_choices(market: Market, best: Deployment) -> list[Choice]:
    names = unused_groups(market.question.context.cluster, best)
    reason = "no worker with it brings 1 % more than the plan without it"
    return [Choice(subject=f"group {name}", chosen="unused", reason=reason) for name in names]
