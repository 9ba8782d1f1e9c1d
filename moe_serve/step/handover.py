"""What an engine asks of whatever hands its requests' keys and values over, to or from others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_serve.types import Batch, Request


@dataclass(slots=True)
class HandoverCounts:
    """Counts since the start; see RankStats."""

    num_handovers: int = 0
    num_failures: int = 0
    bytes_sent: int = 0


class HandoverPart(Protocol):
    """One rank's part; all calls return at once and come from the engine's thread."""

    counts: HandoverCounts

    @property
    def descriptors(self) -> Sequence[int]:
        """Readable while `poll` has something to do."""
        ...

    @property
    def has_notes(self) -> bool:
        """Whether a step is wanted to carry news to the rest of the attention group."""
        ...

    def poll(self) -> bool:
        """Take in what has come, between steps; whether the handover of a request has ended."""
        ...

    def letter(self) -> bytes:
        """What the attention group is told with the next batch."""
        ...

    def share(self, batch: Batch, letters: Sequence[bytes]) -> None:
        """The attention group is about to compute a batch.

        Args:
            letters: of its members.
        """
        ...

    def after_layer(self, layer: int) -> None:
        """One layer's keys and values of the batch are in their pages."""
        ...


class Handover(HandoverPart, Protocol):
    """That of a rank with a scheduler, which leads its attention group."""

    def add(self, request: Request) -> None:
        """The scheduler has taken a request."""
        ...

    def refuse(self, request: Request, reason: str) -> None:
        """The scheduler has not taken a request that has a `decode_rank`."""
        ...

    def begin_step(self) -> None:
        """The scheduler has formed a batch, for which it may have admitted requests."""
        ...


class NoHandover:
    """Of a rank whose requests are its own from beginning to end."""

    descriptors = ()
    has_notes = False

    def __init__(self) -> None:
        self.counts = HandoverCounts()

    def add(self, request: Request) -> None:
        assert request.prefill_rank is None and request.decode_rank is None, "there is no other end"

    def refuse(self, request: Request, reason: str) -> None:
        raise AssertionError("there is no other end")

    def poll(self) -> bool:
        return False

    def begin_step(self) -> None: ...

    def letter(self) -> bytes:
        return b""

    def share(self, batch: Batch, letters: Sequence[bytes]) -> None: ...

    def after_layer(self, layer: int) -> None: ...
