"""What is asked of a deployment, in figures, and what it is predicted to give."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests in the mean: either an open stream of `rate` or `concurrency` clients in a loop.

    Attributes:
        rate: requests per second, Poisson; 0 where `concurrency` is given.
        concurrency: clients that each send their next request when the last one ends.
        prompt_cv: coefficient of variation of prompt lengths; 0 is all alike.
        cached_share: share of the prompt tokens that the prefix cache holds.
        tokens_per_step: tokens that one decode step yields per sequence; above 1 with
            speculation.
    """

    prompt_tokens: float
    output_tokens: float
    rate: float = 0.0
    concurrency: int = 0
    prompt_cv: float = 0.0
    output_cv: float = 0.0
    cached_share: float = 0.0
    tokens_per_step: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Service levels that must hold at a percentile (0 to 1); 0 seconds asks nothing."""

    ttft: float = 0.0
    tpot: float = 0.0
    percentile: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a deployment gives under a workload, in seconds, requests and tokens per second.

    Attributes:
        ttft: median time to the first token.
        ttft_tail: at the objective's percentile.
        tpot: median time per output token after the first.
        request_rate: requests per second that end.
        throughput: output tokens per second.
        utilisation: busy share by pool role (prefill, decode, both), 1 where saturated.
        saturated: the rate asked for is more than can be served.
    """

    ttft: float
    ttft_tail: float
    tpot: float
    tpot_tail: float
    request_rate: float
    throughput: float
    utilisation: dict[str, float]
    saturated: bool = False
