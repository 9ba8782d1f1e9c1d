"""The mixture of steps that decode alone and steps that carry prompt tokens too.

Like the cost of a step, these are operators alone: floats, or arrays of one number per case.
"""

from collections.abc import Callable
from dataclasses import dataclass

from moe_placement.cost.step_shape import StepShape
from moe_placement.serving.limits import ServingLimits

Seconds = Callable[[StepShape], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """One request in the mean.

    Attributes:
        prompt: tokens to compute.
        cached: tokens of the prompt that the prefix cache holds.
        steps: decode steps after the first token.
        tokens_per_step: that a decode step yields for one sequence.
    """

    prompt: float
    cached: float
    steps: float
    tokens_per_step: float

    @property
    def held(self) -> float:
        """Tokens in the cache, in the mean over the request's life."""
        return self.prompt + self.cached + self.steps * self.tokens_per_step / 2

    def step(self, prefill: float, decoding: float, imbalance: float = 1.0) -> StepShape:
        """A step with so many prompt tokens and decoding sequences.

        Args:
            imbalance: prompt tokens of the fullest attention group over the mean.
        """
        return StepShape(
            prefill_tokens=prefill,
            prefill_context=self.cached + self.prompt / 2,
            decode_sequences=decoding,
            decode_context=self.held,
            decode_tokens_per_sequence=self.tokens_per_step,
            prefill_imbalance=imbalance,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Steps at a number of decoding sequences whose requests end and are replaced.

    Attributes:
        mean: seconds between two decode steps of a sequence, with the prefill between them.
        plain: seconds of a step that decodes alone.
        mixed: seconds of a step that carries prompt tokens too.
        mixed_share: of the steps.
        residual: seconds to the end of the step in which a request comes.
        service: seconds of the steps that compute one prompt, none before it.
        slot: seconds that each prompt before it adds.
        spread: standard deviation of a request's own mean step, which some prompts more or
            fewer interrupt.
    """

    mean: float
    plain: float
    mixed: float
    mixed_share: float
    residual: float
    service: float
    slot: float
    spread: float


def mix_steps(
    seconds: Seconds, request: RequestShape, limits: ServingLimits, decoding: float
) -> Mixture:
    """Each decode step lets `decoding / steps` prompts in, which come in chunks of whole prompts
    or of the budget of tokens, whichever is less, or of all that one step must take.

    A prompt is in one attention group, whose devices the others wait for unless they have
    prompts of their own; its experts are on the devices of all groups.
    """
    budget, groups = limits.max_tokens_per_step, limits.num_groups
    alone = least(request.prompt, budget / groups)
    demand = decoding / request.steps * request.prompt
    chunk = least(budget, greatest(alone, demand))
    share = demand / chunk
    plain_share = greatest(1 - share, 0.0)
    plain = seconds(request.step(0.0, decoding))
    full = greatest(chunk, alone * groups)
    mixed = seconds(request.step(chunk, decoding, full / chunk))
    mean = plain_share * plain + share * mixed
    return Mixture(
        mean=mean,
        plain=plain,
        mixed=mixed,
        mixed_share=share,
        residual=(plain_share * plain**2 + share * mixed**2) / (2 * mean),
        service=seconds(request.step(alone, decoding, groups)) * request.prompt / alone,
        slot=seconds(request.step(full, decoding)) * request.prompt / full,
        spread=(mixed - plain) * (share / request.steps) ** 0.5,
    )


def least(first: float, second: float) -> float:
    return (first + second - abs(first - second)) / 2


def greatest(first: float, second: float) -> float:
    return (first + second + abs(first - second)) / 2
