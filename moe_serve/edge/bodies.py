"""Request bodies as OpenAI defines them, with the usual extensions of open engines."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

SEED_LIMIT = 2**63
# OpenAI's limit; every entry costs each of n choices.
MAX_BIASES = 300
MAX_STOP_IDS = 128
MAX_PROMPTS = 4096


def one_of(sentence: str) -> WrapValidator:
    """Say one sentence for a union that nothing in it fits, rather than one for each branch."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except ValidationError:
            kinds = {"kinds": sentence}
            raise PydanticCustomError("wrong_type", "Input should be {kinds}", kinds) from None

    return WrapValidator(validate)


TokenId = Annotated[int, Field(ge=0)]
Listed = TypeVar("Listed")
# The first bad item is enough: one error each for a million of them takes seconds.
Some = Annotated[Listed, Field(min_length=1, fail_fast=True)]
Prompts = Annotated[Listed, Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]


class Body(BaseModel):
    """Types are strict; fields that are not declared are kept in `model_extra`."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)

    model: str | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    include_usage: bool | None = None


class GenerationBody(Body):
    """What chat and plain completions share; null is the same as leaving a field out."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-SEED_LIMIT, lt=SEED_LIMIT)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Field(max_length=4)] | None,
        one_of("a string of 1 to 1024 characters, or a list of up to 4 of them"),
    ] = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS)] | None = None
    ignore_eos: bool | None = None
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def asked_max_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """Top log-probabilities with each token; None is none at all, 0 the chosen one's."""
        raise NotImplementedError

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """Further fields (`name`, `reasoning_content`) are the template's to use."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        str | list[TextPart] | None, one_of("a string or a list of parts of type text")
    ] = None

    def for_template(self) -> dict[str, Any]:
        """Templates know neither parts nor developers."""
        message = self.model_dump(exclude_none=True)
        message["role"] = "system" if self.role == "developer" else self.role
        if not isinstance(self.content, str):
            message["content"] = "\n".join(part.text for part in self.content or ())
        return message


Messages = Some[list[Message]]


class ChatBody(GenerationBody):
    messages: Messages
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def asked_max_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(GenerationBody):
    prompt: Annotated[
        str | Prompts[list[str]] | Some[list[TokenId]] | Prompts[list[Some[list[TokenId]]]],
        one_of(
            "a string, a list of token ids, or a list of up to "
            f"{MAX_PROMPTS} strings or lists of token ids"
        ),
    ]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry for each prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class TokenizeBody(Body):
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeBody(Body):
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]
