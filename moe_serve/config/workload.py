"""The part of the config that says which requests are expected, and how fast they must be."""

from dataclasses import dataclass, field
from typing import Annotated

from moe_serve.config.rules import Range
from moe_serve.config.units import PerSecond, Seconds

_Tokens = Annotated[int, Range(0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SloConfig:
    """Service levels; 0 asks nothing.

    Attributes:
        ttft: seconds to the first token.
        tpot: seconds for each token after it.
        percentile: share of the requests that must have them.
    """

    ttft: Seconds = 0.0
    tpot: Seconds = 0.0
    percentile: Annotated[float, Range(0, 1)] = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadConfig:
    """Requests in the mean, as they come and as they are answered by the clock on the wall; with
    the default nothing is known of them.

    Attributes:
        rate: requests per second.
        prompt_tokens, output_tokens: of one request.
    """

    rate: PerSecond = 0.0
    prompt_tokens: _Tokens = 0
    output_tokens: _Tokens = 0
    slo: SloConfig = field(default_factory=SloConfig)

    @property
    def is_given(self) -> bool:
        return self != WorkloadConfig()
