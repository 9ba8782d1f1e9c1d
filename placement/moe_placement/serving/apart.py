"""What prefill workers and decode workers of their own give: TTFT, TPOT and throughput."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from moe_placement.cost.step_timer import StepTimer
from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.mixture import RequestShape
from moe_placement.serving.tail import tail_wait
from moe_placement.serving.tandem import (
    PrefillStation,
    prefill_station,
    settle_decoding,
    settle_tandem,
)
from moe_placement.serving.together import request_shape
from moe_placement.serving.workload import Objective, Prediction, Workload

# Of a step: what rounding leaves of a queue that is not there.
_NEGLIGIBLE = 1e-6


def predict_apart(
    prefill_timer: StepTimer,
    num_prefill: int,
    decode_timer: StepTimer,
    num_decode: int,
    workload: Workload,
    *,
    limits: ServingLimits,
    prefill_groups: int = 1,
    prefill_budget: float = 8192.0,
    transfer_seconds_per_token: float = 0.0,
    objective: Objective | None = None,
) -> Prediction:
    """Steady state of prefill workers that hand their requests to decode workers.

    Where more comes than can be served, `saturated` is set; in an open stream the first token
    then never comes (inf), and rate and throughput are the most that the workers give.

    Args:
        limits: of one decode worker.
        prefill_groups: attention groups of one prefill worker.
        prefill_budget: prompt tokens that one step of one of these groups computes at most.
        transfer_seconds_per_token: to move one prompt token's cache to the decode worker.
    """
    request = request_shape(workload)
    station = prefill_station(
        prefill_timer.seconds, request, num_prefill, prefill_groups, prefill_budget
    )
    handover = transfer_seconds_per_token * workload.prompt_tokens
    case = _Case(station, decode_timer, num_decode, workload, request, limits, handover)
    percentile = objective.percentile if objective else 0.5
    return case.closed(percentile) if workload.concurrency else case.open(percentile)


@dataclass(frozen=True, slots=True)
class _Case:
    station: PrefillStation
    timer: StepTimer
    num_decode: int
    workload: Workload
    request: RequestShape
    limits: ServingLimits
    handover: float

    def closed(self, percentile: float) -> Prediction:
        state = settle_tandem(
            self.station,
            self.timer.seconds,
            self.request,
            float(self.workload.concurrency),
            num_decode=self.num_decode,
            limits=self.limits,
            handover=self.handover,
        )
        busy = {
            "prefill": min(1.0, state.rate * self.station.slot),
            "decode": min(1.0, state.decoding / self.num_decode),
        }
        is_full = state.queueing > _NEGLIGIBLE * state.step
        deviation = self.station.slot * math.sqrt(state.decoding)
        wait = partial(tail_wait, state.waiting, busy["prefill"], deviation=deviation)
        fixed = state.queueing + self.handover
        return self._prediction(fixed, wait, state.step, state.rate, busy, is_full, percentile)

    def open(self, percentile: float) -> Prediction:
        asked, most = self.workload.rate, self.limits.sequences(self.request.held)
        longest = self.request.steps * self.timer.seconds(self.request.step(0.0, most))
        served = min(asked, most * self.num_decode / longest, 1 / self.station.slot)
        decoding = settle_decoding(self.timer.seconds, self.request, served / self.num_decode, most)
        load = served * self.station.slot
        busy = {"prefill": load, "decode": 1 - math.exp(-decoding)}
        is_full = served < asked
        variation = 1 + self.workload.prompt_cv**2
        mean = math.inf if is_full else load * self.station.slot * variation / (2 * (1 - load))
        wait = partial(tail_wait, mean, load)
        step = self.timer.seconds(self.request.step(0.0, decoding))
        return self._prediction(self.handover, wait, step, served, busy, is_full, percentile)

    def _prediction(
        self,
        fixed: float,
        wait: Callable[[float], float],
        step: float,
        rate: float,
        utilisation: dict[str, float],
        saturated: bool,
        percentile: float,
    ) -> Prediction:
        fixed += self.station.service
        tpot = step / self.workload.tokens_per_step
        return Prediction(
            ttft=fixed + wait(0.5),
            ttft_tail=fixed + wait(percentile),
            tpot=tpot,
            tpot_tail=tpot,
            request_rate=rate,
            throughput=rate * self.workload.output_tokens,
            utilisation=utilisation,
            saturated=saturated,
        )
