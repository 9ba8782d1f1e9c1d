"""What the HTTP edge needs of the engine, whichever process the engine runs in."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from moe_serve.messages import MembershipNews, RankStats
from moe_serve.types import Request, TokenEvent
from moe_serve.types import ServedModel as ServedModel
from moe_serve.types import Task as Task


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
