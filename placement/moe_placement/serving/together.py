"""What workers that do both phases in the same steps give: TTFT, TPOT and throughput."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from moe_placement.cost.step_timer import StepTimer
from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.loop import settle_loop
from moe_placement.serving.mixture import Mixture, RequestShape
from moe_placement.serving.stream import StreamState, settle_stream
from moe_placement.serving.tail import tail_wait
from moe_placement.serving.workload import Objective, Prediction, Workload


def predict_together(
    timer: StepTimer,
    workload: Workload,
    *,
    limits: ServingLimits,
    num_workers: int = 1,
    objective: Objective | None = None,
) -> Prediction:
    """Steady state of `num_workers` like workers that share the requests evenly.

    A closed loop is settled where the workload has a concurrency, else an open stream. Where
    more comes than can be served, `saturated` is set; in an open stream the first token then
    never comes (inf), and rate and throughput are the most that the workers give.
    """
    case = _Case(timer, workload, request_shape(workload), limits, num_workers)
    percentile = objective.percentile if objective else 0.5
    return case.closed(percentile) if workload.concurrency else case.open(percentile)


def request_shape(workload: Workload) -> RequestShape:
    """One request of a workload, in the mean."""
    return RequestShape(
        prompt=max(1.0, workload.prompt_tokens * (1 - workload.cached_share)),
        cached=workload.prompt_tokens * workload.cached_share,
        steps=max(1.0, (workload.output_tokens - 1) / workload.tokens_per_step),
        tokens_per_step=workload.tokens_per_step,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    timer: StepTimer
    workload: Workload
    request: RequestShape
    limits: ServingLimits
    num_workers: int

    def closed(self, percentile: float) -> Prediction:
        clients = self.workload.concurrency / self.num_workers
        state = settle_loop(self.timer.seconds, self.request, max(1.0, clients), self.limits)
        admission = max(0.0, clients - state.admitted) / state.rate
        ttft = _Ttft(
            fixed=state.mixture.service + admission,
            residual=state.mixture.residual,
            wait=state.waiting,
            busy=min(1.0, state.rate * state.mixture.slot),
            deviation=state.mixture.slot * math.sqrt(state.decoding),
        )
        present = min(1.0, clients)
        rate = state.rate * self.num_workers * present
        return self._prediction(ttft, state.mixture, rate, present, admission > 0, percentile)

    def open(self, percentile: float) -> Prediction:
        rate = self.workload.rate / self.num_workers
        state = settle_stream(self.timer.seconds, self.request, rate, self.limits)
        if state.saturated:
            most = self.limits.sequences(self.request.held)
            rate = min(rate, settle_loop(self.timer.seconds, self.request, most, self.limits).rate)
        ttft = _Ttft(
            fixed=state.mixture.service,
            residual=state.mixture.residual,
            wait=self._stream_wait(state),
            busy=min(1.0, state.load),
        )
        present = 1.0 if state.saturated else 1 - math.exp(-state.decoding)
        rate *= self.num_workers
        return self._prediction(ttft, state.mixture, rate, present, state.saturated, percentile)

    def _stream_wait(self, state: StreamState) -> float:
        """Pollaczek and Khinchine's mean wait, for prompts of the workload's variation."""
        if state.saturated:
            return math.inf
        variation = 1 + self.workload.prompt_cv**2
        return state.load * state.mixture.slot * variation / (2 * (1 - state.load))

    def _prediction(
        self,
        ttft: "_Ttft",
        mixture: Mixture,
        rate: float,
        present: float,
        saturated: bool,
        percentile: float,
    ) -> Prediction:
        deviations = NormalDist().inv_cdf(min(max(percentile, 1e-6), 1 - 1e-6))
        slowest = mixture.mean + deviations * mixture.spread
        return Prediction(
            ttft=ttft.at(0.5),
            ttft_tail=ttft.at(percentile),
            tpot=mixture.mean / self.workload.tokens_per_step,
            tpot_tail=slowest / self.workload.tokens_per_step,
            request_rate=rate,
            throughput=rate * self.workload.output_tokens,
            utilisation={"both": present},
            saturated=saturated,
        )


@dataclass(frozen=True, slots=True)
class _Ttft:
    """Seconds to the first token: what all spend, the rest of a step, and a random wait.

    Attributes:
        busy: probability that a request waits for others' prompts.
        deviation: of that wait, at most.
    """

    fixed: float
    residual: float
    wait: float
    busy: float
    deviation: float = math.inf

    def at(self, percentile: float) -> float:
        rest = 2 * percentile * self.residual
        return self.fixed + rest + tail_wait(self.wait, self.busy, percentile, self.deviation)
