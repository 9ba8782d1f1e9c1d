"""What a simulation tells."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.serving.workload import Objective, Prediction
from moe_placement.simulator.distribution import Distribution, weighted_quantiles

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class QueueSample:
    """How many requests waited and ran in a pool at a time, in seconds."""

    seconds: float
    pool: str
    num_waiting: int
    num_running: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestTimes:
    """Of the requests that ended, by the order of their ends. R requests; seconds.

    Attributes:
        ttft_R: from arrival to the first token.
        tpot_R: mean time per token after the first; 0 for answers of one token.
    """

    request_id_R: NDArray[np.int64]
    ttft_R: Floats
    end_to_end_R: Floats
    tpot_R: Floats
    output_tokens_R: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """Attributes:
    num_requests: that arrived: each finished, was refused, or was unfinished at the end.
    num_resubmitted: times that a request lost its rank and was sent to another.
    seconds: from the first arrival to the last event.
    tpot: of requests, each by its mean; answers of one token do not count.
    inter_token: of single gaps between tokens.
    request_rate: requests per second that finished.
    throughput: output tokens per second, of requests that finished.
    utilisation: busy share of the pool's workers, by pool.
    link_bytes: by link.
    """

    num_requests: int
    num_finished: int
    num_refused: int
    num_unfinished: int
    num_resubmitted: int
    seconds: float
    ttft: Distribution
    tpot: Distribution
    inter_token: Distribution
    end_to_end: Distribution
    request_rate: float
    throughput: float
    utilisation: Mapping[str, float]
    utilisation_by_role: Mapping[str, float]
    link_bytes: Mapping[str, float]
    num_steps: int
    num_preemptions: int
    num_prompt_tokens: int
    num_cached_tokens: int
    queues: tuple[QueueSample, ...]
    times: RequestTimes

    @property
    def prefix_hit_rate(self) -> float:
        """Share of the admitted prompt tokens that were found in a prefix cache."""
        return self.num_cached_tokens / self.num_prompt_tokens if self.num_prompt_tokens else 0.0

    def attainment(self, objective: Objective) -> float:
        """Share of all requests that finished within the objective's seconds."""
        return self._num_good(objective) / self.num_requests if self.num_requests else 0.0

    def goodput(self, objective: Objective) -> float:
        """Requests per second that finished within the objective's seconds."""
        return self._num_good(objective) / self.seconds if self.seconds else 0.0

    def prediction(self, objective: Objective, *, saturated: bool = False) -> Prediction:
        """The same figures as the analytic prediction gives."""
        return Prediction(
            ttft=self.ttft.p50,
            ttft_tail=_quantile(self.times.ttft_R, objective.percentile),
            tpot=self.tpot.p50,
            tpot_tail=_quantile(
                self.times.tpot_R[self.times.output_tokens_R > 1], objective.percentile
            ),
            request_rate=self.request_rate,
            throughput=self.throughput,
            utilisation=dict(self.utilisation_by_role),
            saturated=saturated,
        )

    def _num_good(self, objective: Objective) -> int:
        good_R = np.ones(self.num_finished, bool)
        for seconds, actual_R in (
            (objective.ttft, self.times.ttft_R),
            (objective.tpot, self.times.tpot_R),
        ):
            if seconds:
                good_R &= actual_R <= seconds
        return int(good_R.sum())


def _quantile(values: Floats, share: float) -> float:
    if not len(values):
        return 0.0
    return float(weighted_quantiles(values, np.ones_like(values), share))
