"""How many requests a second a worker serves within the objective, phase by phase."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from moe_placement.serving.apart import predict_apart
from moe_placement.serving.mixture import RequestShape, mix_steps
from moe_placement.serving.tandem import prefill_station
from moe_placement.serving.together import predict_together, request_shape
from moe_placement.serving.workload import Objective, Prediction, Workload
from moe_placement.solver.workers.candidate import Candidate
from moe_placement.solver.workers.worker import Phase

# Workers of the other phase, so many that only the one asked about counts.
PLENTY = 10**6
_BISECTIONS = 24
_RATE_ROUNDS = 10
# Of the rate that steps alone allow, queues may add little and take much.
_ABOVE_BOUND = 1.3
_BRACKETS = (0.5, 0.1, 0.01, 1e-3)


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked: the requests, the service levels, and how caches travel.

    Attributes:
        prompt_budget: prompt tokens of one step on one attention group.
        transfer_seconds: of one prompt token's cache between phases.
    """

    workload: Workload
    objective: Objective
    prompt_budget: float
    transfer_seconds: float = 0.0

    @property
    def request(self) -> RequestShape:
        return request_shape(self.workload)

    def at_rate(self, rate: float) -> Workload:
        return replace(self.workload, rate=rate, concurrency=0)

    def is_met(self, prediction: Prediction, phase: Phase) -> bool:
        """Whether workers of a phase serve their part: a prefill worker makes no later token, a
        decode worker no first one."""
        asked = self.objective
        if phase == "prefill":
            asked = replace(asked, tpot=0.0)
        elif phase == "decode":
            asked = replace(asked, ttft=0.0)
        return meets(prediction, asked) and not prediction.saturated


def meets(prediction: Prediction, objective: Objective) -> bool:
    """Whether both service levels hold."""
    return (not objective.ttft or prediction.ttft_tail <= objective.ttft) and (
        not objective.tpot or prediction.tpot_tail <= objective.tpot
    )


def predict_workers(
    candidate: Candidate, phase: Phase, count: int, workload: Workload, demand: Demand
) -> Prediction:
    """Like workers of one phase, the other phase being no hindrance."""
    if phase == "both":
        return predict_together(
            candidate.timer,
            workload,
            limits=candidate.limits,
            num_workers=count,
            objective=demand.objective,
        )
    num_prefill, num_decode = (count, PLENTY) if phase == "prefill" else (PLENTY, count)
    return predict_pair(candidate, num_prefill, candidate, num_decode, workload, demand)


def predict_pair(
    prefill: Candidate,
    num_prefill: int,
    decode: Candidate,
    num_decode: int,
    workload: Workload,
    demand: Demand,
) -> Prediction:
    return predict_apart(
        prefill.timer,
        num_prefill,
        decode.timer,
        num_decode,
        workload,
        limits=decode.limits,
        prefill_groups=prefill.kind.num_attention_groups,
        prefill_budget=demand.prompt_budget,
        transfer_seconds_per_token=demand.transfer_seconds,
        objective=demand.objective,
    )


def rate_bound(candidate: Candidate, phase: Phase, demand: Demand) -> float:
    """Requests per second of one worker by its steps alone: no queue, no percentile. Enough to
    rank workers by; 0 where even one sequence is too slow."""
    request, seconds = demand.request, candidate.timer.seconds
    if phase == "prefill":
        return 1 / _prompt_slot(candidate, demand)
    batch = batch_bound(candidate, phase, demand)
    if not batch:
        return 0.0
    if phase == "decode":
        return batch / (request.steps * seconds(request.step(0.0, batch)))
    mixture = mix_steps(seconds, request, candidate.limits, batch)
    return batch / (request.steps * mixture.mean)


def batch_bound(candidate: Candidate, phase: Phase, demand: Demand) -> float:
    """Sequences that decode at once on one worker whose steps keep to the objective, at most."""
    request, seconds = demand.request, candidate.timer.seconds
    limit = demand.objective.tpot * request.tokens_per_step or math.inf
    most = candidate.full_batch(request)
    if phase == "decode":
        return _largest(lambda size: seconds(request.step(0.0, size)) <= limit, most)

    def holds(size: float) -> bool:
        mixture = mix_steps(seconds, request, candidate.limits, size)
        return mixture.mean <= limit and size * mixture.slot <= request.steps * mixture.mean

    return _largest(holds, most)


def served_rate(candidate: Candidate, phase: Phase, count: int, demand: Demand) -> float:
    """Requests per second that so many like workers serve within the objective, to 0.1 %."""
    high = count * rate_bound(candidate, phase, demand) * _ABOVE_BOUND
    if not high:
        return 0.0

    def holds(rate: float) -> bool:
        prediction = predict_workers(candidate, phase, count, demand.at_rate(rate), demand)
        return demand.is_met(prediction, phase)

    above = high
    for share in _BRACKETS:
        if holds(high * share):
            return _bisect(holds, high * share, above, _RATE_ROUNDS)
        above = high * share
    return 0.0


def _prompt_slot(candidate: Candidate, demand: Demand) -> float:
    groups = candidate.kind.num_attention_groups
    seconds = candidate.timer.seconds
    return prefill_station(seconds, demand.request, 1, groups, demand.prompt_budget).slot


def _largest(holds: Callable[[float], bool], most: float) -> float:
    """The largest batch, of at least one sequence, for which a falling condition holds; else 0."""
    low = min(1.0, most)
    if not holds(low):
        return 0.0
    return most if holds(most) else _bisect(holds, low, most, _BISECTIONS)


def _bisect(holds: Callable[[float], bool], low: float, high: float, rounds: int) -> float:
    """Between a number that holds and one that need not; geometric, for orders of magnitude."""
    for _ in range(rounds):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
