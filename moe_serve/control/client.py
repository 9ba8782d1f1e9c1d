"""What the HTTP edge needs of the engine, whichever process the engine runs in."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from moe_serve.messages import MembershipNews, RankStats
from moe_serve.types import Request, TokenEvent

Task = Literal["generate", "embed", "rerank"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One tenant as the edge sees it.

    Attributes:
        name: the `model` that requests name.
        path: checkpoint directory, for tokenizer and chat template.
        context_length: the most tokens of prompt and answer together.
        vocab_size: token ids are below this.
        end_token_ids: the ids that end a sequence (generation_config.json, else config.json).
        task: what the model does: generate text, embed texts, or score pairs of them (rerank).
        embedding_width: of an embedding; 0 where the task is another one.
    """

    name: str
    path: str
    context_length: int
    vocab_size: int
    end_token_ids: tuple[int, ...]
    task: Task = "generate"
    embedding_width: int = 0


class EngineClient(Protocol):
    """Submits requests to the ranks and brings their tokens back."""

    @property
    def is_ready(self) -> bool:
        """All ranks are connected, and the server is not draining."""
        ...

    def generate(self, requests: Sequence[Request]) -> AsyncGenerator[TokenEvent, None]:
        """Events of all the requests as they come, each request's last with a finish reason.

        The requests go to one rank, so that they share their prompt's pages. Closing the
        iterator early (`aclose`) aborts what is unfinished. The iterator's first step raises
        OverloadedError when all ranks are full and EngineDeadError when a rank is gone; a rank
        that refuses a request, or dies later, gives it an event with finish reason "error" and
        the kind of the error.
        """
        ...

    def abort(self, request_id: str) -> None:
        """End one request early (a stop string was found); its iterator gets "abort"."""
        ...

    @property
    def expert_imbalance(self) -> float:
        """Max / mean over ranks of the expert rows computed of late; 1 is even."""
        ...

    @property
    def membership(self) -> MembershipNews:
        """Which ranks are lost."""
        ...

    def stats(self) -> Sequence[RankStats]:
        """The newest statistics of each rank, by plan rank."""
        ...
