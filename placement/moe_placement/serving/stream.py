"""The steady state of an open Poisson stream on one worker that does both phases."""

from dataclasses import dataclass

from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.mixture import Mixture, RequestShape, Seconds, mix_steps

_ROUNDS = 40
_DAMPING = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """What the stream settles to.

    Attributes:
        decoding: sequences in the mean.
        load: share of the time that arriving prompts take, below 1 where they can be served.
        saturated: more comes than can be served, or than the caches hold.
    """

    decoding: float
    load: float
    saturated: bool
    mixture: Mixture


def settle_stream(
    seconds: Seconds, request: RequestShape, rate: float, limits: ServingLimits
) -> StreamState:
    """As many sequences decode as come while one answer lasts (Little's law)."""
    most = limits.sequences(request.held)
    decoding = min(most, rate * request.steps * seconds(request.step(0.0, 1.0)))
    mixture = mix_steps(seconds, request, limits, decoding)
    for _ in range(_ROUNDS):
        wanted = rate * request.steps * mixture.mean
        decoding += _DAMPING * (min(most, wanted) - decoding)
        mixture = mix_steps(seconds, request, limits, decoding)
    load = rate * mixture.slot
    wanted = rate * request.steps * mixture.mean
    return StreamState(
        decoding=decoding, load=load, saturated=load >= 1 or wanted > most * 1.001, mixture=mixture
    )
