"""Response objects in OpenAI's form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Protocol
from uuid import uuid4

from moe_serve.edge.choice import ChoiceEnd, Delta
from moe_serve.edge.generation import Usage
from moe_serve.edge.logprobs import TokenLogprob


@dataclass(slots=True)
class WholeChoice:
    """A choice's deltas put together."""

    index: int
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: ChoiceEnd | None = None

    def add(self, delta: Delta) -> None:
        self.content.append(delta.content)
        self.reasoning.append(delta.reasoning)
        self.logprobs.extend(delta.logprobs)
        self.finish_reason = delta.finish_reason


class Shape(Protocol):
    """How one route words its answers."""

    id_prefix: str
    object_name: str
    chunk_name: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """The `choices` entry before a choice's first text, where the route has one."""
        ...

    def pieces(self, delta: Delta) -> list[dict[str, Any]]:
        """The `choices` entries of a delta's chunks."""
        ...

    def whole(self, choice: WholeChoice) -> dict[str, Any]:
        """The `choices` entry of an answer that is not streamed."""
        ...


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all objects of one answer share."""

    answer_id: str
    created: int
    model: str
    fingerprint: str

    @classmethod
    def new(cls, id_prefix: str, model: str, fingerprint: str) -> "Envelope":
        return cls(f"{id_prefix}-{uuid4().hex}", int(time()), model, fingerprint)

    def wrap(
        self, object_name: str, choices: Sequence[dict[str, Any]], **further: Any
    ) -> dict[str, Any]:
        return {
            "id": self.answer_id,
            "object": object_name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            **further,
        }


def prompt_usage(num_tokens: int) -> dict[str, Any]:
    """Of an answer that has no tokens of its own."""
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_completion_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached_tokens},
    }
