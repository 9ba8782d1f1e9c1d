"""Who of the world is still there: the record that plan rank 0 keeps and all other ranks follow.

Every rank has a line to plan rank 0, and a thread that sends a beat over it whatever the rank
computes: a silent line means a stopped process or a cut link, never a long step.
"""

import threading
from dataclasses import dataclass
from typing import Protocol

from moe_comm.transport.exchange import PeerLostError

# Several beats fit into the silence that counts as a loss: one of them may be late.
BEAT_SECONDS = 0.2
SILENT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """Attributes:
    epoch: of the membership; grows whenever ranks are lost or come back.
    lost: plan ranks.
    addresses: HOST:PORT of each rank that has come back, where ranks of other mpiruns reach it.
    """

    epoch: int = 0
    lost: frozenset[int] = frozenset()
    addresses: tuple[tuple[int, str], ...] = ()


class Lifeline(Protocol):
    """A rank's end of the record, kept up to date by a thread of its own."""

    @property
    def record(self) -> Record: ...

    @property
    def ending(self) -> str:
        """Why there is no world any more for this rank; empty while there is one."""
        ...

    def accuse(self, epoch: int, ranks: frozenset[int]) -> None:
        """Say that some ranks of an epoch's world cannot be reached from here."""
        ...

    def wait_beyond(self, epoch: int, seconds: float) -> Record:
        """The first record of a later epoch.

        Raises:
            PeerLostError: none came in time, or there is no world any more.
        """
        ...

    def close(self) -> None:
        """Leave a world whose ranks agreed to end."""
        ...


class Notebook:
    """A record, written by one thread and read by others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.record = Record()
        self.ending = ""

    def write(self, record: Record) -> None:
        with self._changed:
            self.record = record
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        with self._changed:
            self.ending = self.ending or reason
            self._changed.notify_all()

    def wait_beyond(self, epoch: int, seconds: float) -> Record:
        """As Lifeline has it."""
        with self._changed:
            self._changed.wait_for(lambda: self.record.epoch > epoch or self.ending, seconds)
            if self.ending:
                raise PeerLostError(self.ending)
            if self.record.epoch == epoch:
                raise PeerLostError(
                    f"a rank did not answer, and plan rank 0 still hears of all after {seconds:g} s"
                )
            return self.record
