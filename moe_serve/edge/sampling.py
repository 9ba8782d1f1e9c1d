"""A request body's sampling fields as the engine's SamplingParams."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from moe_serve.control.requests.client import ServedModel
from moe_serve.edge.bodies import SEED_LIMIT, GenerationBody
from moe_serve.edge.errors import ContextLengthError
from moe_serve.errors import RequestError
from moe_serve.types import SamplingParams

# Logits divided by less than this leave float32; what they would choose is the greedy token.
_COLDEST = 1e-4


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """How a prompt field is called and what an answer's length is when none is asked for.

    Attributes:
        parameter: the body's field.
        default_max_tokens: None is all that the context leaves.
    """

    parameter: str
    default_max_tokens: int | None


CHAT = PromptLimits("messages", None)
COMPLETION = PromptLimits("prompt", 16)


def sampling_params(body: GenerationBody, model: ServedModel, max_tokens: int) -> SamplingParams:
    """The body's fields with OpenAI's defaults, without a seed.

    Raises:
        RequestError: a token id that the model does not have.
    """
    defaults = SamplingParams()
    temperature = _given(body.temperature, defaults.temperature)
    return SamplingParams(
        temperature=temperature if temperature >= _COLDEST else 0.0,
        top_p=_given(body.top_p, defaults.top_p),
        top_k=min(max(0, body.top_k or 0), model.vocab_size),
        min_p=_given(body.min_p, defaults.min_p),
        repetition_penalty=_given(body.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=_given(body.presence_penalty, defaults.presence_penalty),
        frequency_penalty=_given(body.frequency_penalty, defaults.frequency_penalty),
        logit_bias=_logit_bias(body.logit_bias or {}, model.vocab_size),
        logprobs=body.num_logprobs,
        stop_token_ids=check_ids(body.stop_token_ids or [], model.vocab_size, "stop_token_ids"),
        max_tokens=max_tokens,
        ignore_eos=bool(body.ignore_eos),
    )


def choice_seed(seed: int | None, index: int) -> int:
    """Choices of one request differ, and the same seed gives the same choices."""
    return secrets.randbelow(SEED_LIMIT) if seed is None else (seed + index) % SEED_LIMIT


def resolve_max_tokens(
    asked: int | None, num_prompt_tokens: int, model: ServedModel, limits: PromptLimits
) -> int:
    """How many tokens the answer may have.

    Raises:
        ContextLengthError: what is asked for is more than the model's context.
    """
    most = model.context_length
    if num_prompt_tokens == 0:
        raise RequestError(f"{limits.parameter} has no tokens", limits.parameter)
    if num_prompt_tokens >= most:
        raise ContextLengthError(
            f"this model's maximum context length is {most} tokens, the {limits.parameter} alone "
            f"have {num_prompt_tokens}, which leaves no room for an answer; shorten them",
            limits.parameter,
        )
    if asked is not None and num_prompt_tokens + asked > most:
        raise ContextLengthError(
            f"this model's maximum context length is {most} tokens, you requested "
            f"{num_prompt_tokens + asked} ({num_prompt_tokens} in the {limits.parameter}, {asked} "
            "in the completion); reduce one of them",
            limits.parameter,
        )
    room = most - num_prompt_tokens
    return asked or min(limits.default_max_tokens or room, room)


def check_ids(token_ids: Sequence[int], vocab_size: int, parameter: str) -> tuple[int, ...]:
    """The ids, all of them the model's; a tokenizer may know tokens that its model lacks.

    Raises:
        RequestError: names the first id that is not.
    """
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise RequestError(
                f"{parameter}: token id {token_id} is not in 0..{vocab_size - 1}", parameter
            )
    return tuple(token_ids)


def _logit_bias(biases: dict[str, float], vocab_size: int) -> tuple[tuple[int, float], ...]:
    for name in biases:
        if not (name.isascii() and name.isdecimal() and len(name) < 19 and str(int(name)) == name):
            raise RequestError(f"logit_bias: {name!r} is not a token id", "logit_bias")
    ids = check_ids([int(name) for name in biases], vocab_size, "logit_bias")
    return tuple(zip(ids, biases.values(), strict=True))


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
