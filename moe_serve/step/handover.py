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


class Handover(Protocol):
    """One end; all calls return at once and come from the engine's thread."""

    counts: HandoverCounts

    @property
    def descriptors(self) -> Sequence[int]:
        """Readable while `poll` has something to do."""
        ...

    def add(self, request: Request) -> None:
        """The scheduler has taken a request."""
        ...

    def refuse(self, request: Request, reason: str) -> None:
        """The scheduler has not taken a request that has a `decode_rank`."""
        ...

    def poll(self) -> bool:
        """Take in what has come, between steps; whether the handover of a request has ended."""
        ...

    def begin_step(self, batch: Batch) -> None:
        """The scheduler has formed a batch, for which it may have admitted requests."""
        ...

    def after_layer(self, layer: int) -> None:
        """One layer's keys and values of the batch are in their pages."""
        ...


class NoHandover:
    """Of a rank whose requests are its own from beginning to end."""

    descriptors = ()

    def __init__(self) -> None:
        self.counts = HandoverCounts()

    def add(self, request: Request) -> None:
        assert request.prefill_rank is None and request.decode_rank is None, "there is no other end"

    def refuse(self, request: Request, reason: str) -> None:
        raise AssertionError("there is no other end")

    def poll(self) -> bool:
        return False

    def begin_step(self, batch: Batch) -> None: ...

    def after_layer(self, layer: int) -> None: ...
