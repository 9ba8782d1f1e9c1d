"""What a whole deployment is predicted to give: its workers' predictions, put together."""

import math
from collections.abc import Sequence
from dataclasses import replace

from moe_placement.serving.workload import Prediction, Workload
from moe_placement.solver.pools.rates import Rates
from moe_placement.solver.workers.service import Demand, meets, predict_pair, predict_workers
from moe_placement.solver.workers.worker import Deployment, Workers


def predict(deployment: Deployment, workload: Workload, rates: Rates) -> Prediction:
    """Requests go to workers in proportion to what those serve; times are those of the slowest
    kind, so that what is promised holds wherever a request goes.

    With separate phases, one kind of prefill worker and one of decode worker are predicted as
    the pair that they are; of more kinds each is predicted on its own.
    """
    both = [workers for workers in deployment.workers if workers.phase == "both"]
    apart = [workers for workers in deployment.workers if workers.phase != "both"]
    share_of_both = _share(both, apart, rates)
    predictions = _each(both, _portion(workload, share_of_both), rates)
    if apart:
        predictions.append(_predict_apart(apart, _portion(workload, 1 - share_of_both), rates))
    return _combined(predictions, workload)


def _share(both: Sequence[Workers], apart: Sequence[Workers], rates: Rates) -> float:
    """Of the requests, those that go to workers of both phases."""
    if not both or not apart:
        return 1.0 if both else 0.0
    together = rates.capacity(Deployment(tuple(both)))
    whole = rates.capacity(Deployment((*both, *apart)))
    return together / whole if whole else 0.5


def _predict_apart(apart: Sequence[Workers], workload: Workload, rates: Rates) -> Prediction:
    prefill = [workers for workers in apart if workers.phase == "prefill"]
    decode = [workers for workers in apart if workers.phase == "decode"]
    if len(prefill) == len(decode) == 1:
        one, other = prefill[0], decode[0]
        return predict_pair(
            rates.candidates[one.kind],
            one.count,
            rates.candidates[other.kind],
            other.count,
            workload,
            rates.demand,
        )
    first = _combined(_each(prefill, workload, rates), workload)
    later = _combined(_each(decode, workload, rates), workload)
    served = min(first.request_rate, later.request_rate)
    return replace(
        first,
        tpot=later.tpot,
        tpot_tail=later.tpot_tail,
        request_rate=served,
        throughput=served * workload.output_tokens,
        utilisation={**first.utilisation, "decode": later.utilisation["decode"]},
        saturated=first.saturated or later.saturated,
    )


def _each(workers: Sequence[Workers], workload: Workload, rates: Rates) -> list[Prediction]:
    """Each kind of worker of one phase with its share of the requests."""
    served = [rates.of(each.kind, each.phase, each.count) for each in workers]
    total = sum(served)
    shares = [rate / total if total else 1 / len(served) for rate in served]
    return [
        predict_workers(
            rates.candidates[each.kind],
            each.phase,
            each.count,
            _portion(workload, share),
            rates.demand,
        )
        for each, share in zip(workers, shares, strict=True)
    ]


def _portion(workload: Workload, share: float) -> Workload:
    clients = max(1, round(workload.concurrency * share)) if workload.concurrency else 0
    return replace(workload, rate=workload.rate * share, concurrency=clients)


def _combined(predictions: Sequence[Prediction], workload: Workload) -> Prediction:
    """Rates add up; of times and saturation the worst counts."""
    if len(predictions) == 1:
        return predictions[0]
    served = math.fsum(prediction.request_rate for prediction in predictions)
    busiest: dict[str, float] = {}
    for prediction in predictions:
        for role, share in prediction.utilisation.items():
            busiest[role] = max(share, busiest.get(role, 0.0))
    return Prediction(
        ttft=max(prediction.ttft for prediction in predictions),
        ttft_tail=max(prediction.ttft_tail for prediction in predictions),
        tpot=max(prediction.tpot for prediction in predictions),
        tpot_tail=max(prediction.tpot_tail for prediction in predictions),
        request_rate=served,
        throughput=served * workload.output_tokens,
        utilisation=busiest,
        saturated=any(prediction.saturated for prediction in predictions),
    )


def served(deployment: Deployment, rates: Rates) -> float:
    """Requests per second within the objective: the most of an open stream, or what the clients
    of a closed loop get, 0 where that misses the objective."""
    demand = rates.demand
    if not demand.workload.concurrency:
        return rates.capacity(deployment)
    prediction = predict(deployment, demand.workload, rates)
    return prediction.request_rate if meets(prediction, demand.objective) else 0.0


def meets_demand(prediction: Prediction, demand: Demand) -> bool:
    """Whether the objective holds; an open stream must also be served whole."""
    is_short = prediction.saturated and not demand.workload.concurrency
    return meets(prediction, demand.objective) and not is_short
