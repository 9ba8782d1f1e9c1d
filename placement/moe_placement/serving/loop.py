"""The steady state of clients in a closed loop on one worker that does both phases."""

from dataclasses import dataclass

from moe_placement.serving.limits import ServingLimits
from moe_placement.serving.mixture import Mixture, RequestShape, Seconds, greatest, least, mix_steps
from moe_placement.serving.queue import loop_wait

_ROUNDS = 16
_DAMPING = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """What the loop settles to.

    Attributes:
        admitted: requests under way, waiting for a prompt's turn or decoding.
        decoding: of them, decoding.
        waiting: seconds in which a request waits for prompts before it.
        rate: requests per second that end.
    """

    admitted: float
    decoding: float
    waiting: float
    rate: float
    mixture: Mixture


def settle_loop(
    seconds: Seconds, request: RequestShape, clients: float, limits: ServingLimits
) -> LoopState:
    """Steps lengthen with the prefill that they carry, prefill comes as fast as requests end,
    and requests end as fast as steps go: a damped fixed point."""
    admitted = least(clients, limits.sequences(request.held))
    decoding = admitted
    for _ in range(_ROUNDS):
        mixture = mix_steps(seconds, request, limits, decoding)
        answer = request.steps * mixture.mean
        cycle = mixture.residual + mixture.service + answer
        waiting = loop_wait(admitted, mixture.slot, cycle)
        rate = admitted / (cycle + waiting)
        decoding = decoding + _DAMPING * (rate * answer - decoding)
    return LoopState(
        admitted=admitted, decoding=decoding, waiting=waiting, rate=rate, mixture=mixture
    )


def opening_burst(
    seconds: Seconds, request: RequestShape, admitted: float, limits: ServingLimits
) -> float:
    """Mean seconds to the first token where all clients of a loop start at once."""
    budget, groups = limits.max_tokens_per_step, limits.num_groups
    chunk = least(budget, admitted * request.prompt)
    fullest = least(request.prompt, budget / groups) * groups
    imbalance = greatest(chunk, fullest) / chunk
    slot = seconds(request.step(chunk, admitted / 2, imbalance)) * request.prompt / chunk
    return slot * (admitted + 1) / 2
