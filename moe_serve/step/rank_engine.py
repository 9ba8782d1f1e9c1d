"""What the serving loop asks of a rank's engine, whichever part the rank has."""

from collections.abc import Sequence
from typing import Protocol

from moe_serve.messages import RankStats
from moe_serve.types import Request, TokenEvent


class RankEngine(Protocol):
    """Every rank of an EP group calls `step` equally often, with work or without."""

    @property
    def has_work(self) -> bool: ...

    def check(self, request: Request) -> None:
        """Raise the RequestError of a request that can never be served here."""
        ...

    def add(self, request: Request) -> None:
        """Queue a request; RequestError or OverloadedError where it is refused."""
        ...

    def give_back(self, request: Request, reason: str) -> None:
        """Have the `decode_rank` of a request compute its prompt itself."""
        ...

    def abort(self, request_id: str) -> TokenEvent | None:
        """End a request early; None if there is none."""
        ...

    @property
    def descriptors(self) -> Sequence[int]:
        """Readable while `poll` has something to do."""
        ...

    def poll(self) -> bool:
        """Take in what other ranks have sent, between steps; it may bring work. Never waits.

        Returns:
            Whether the handover of a request has ended.
        """
        ...

    def abort_all(self) -> None: ...

    def step(self, max_seconds: float | None = None) -> list[TokenEvent]:
        """Where it raises PeerLostError nothing has happened: the next call does the same.

        Args:
            max_seconds: that the step should take at most: whoever has tokens of his own takes
                fewer of them. All ranks of the group are given the same.
        """
        ...

    def stats(self) -> RankStats: ...
