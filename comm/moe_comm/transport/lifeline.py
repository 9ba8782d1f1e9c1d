"""Who of the world is still there: the record that plan rank 0 keeps and all other ranks follow.

Every rank has a line to plan rank 0, and a thread that sends a beat over it whatever the rank
computes: a silent line means a stopped process or a cut link, never a long step. Wires between the
other ranks tell of links that plan rank 0 has no end of.
"""

import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from moe_comm.transport.exchange import PeerLostError

_LONGEST_BEAT_SECONDS = 0.2
_BEATS_IN_SILENCE = 10


def beat_seconds(silent_seconds: float) -> float:
    """Between two beats: several fit into the silence that counts as a loss, one may be late."""
    return min(_LONGEST_BEAT_SECONDS, silent_seconds / _BEATS_IN_SILENCE)


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
        """Say that some ranks of an epoch's world do not answer."""
        ...

    def report_cut(self, epoch: int, ranks: frozenset[int]) -> None:
        """Say that there is no way to them from here: it may be this end that has to go."""
        ...

    def watch(self, epoch: int, wires: Mapping[int, socket.socket]) -> None:
        """Report a cut where a wire of an epoch's world falls silent.

        Args:
            wires: to ranks of other mpiruns, whose other ends are watched as well; its own from
                now on.
        """
        ...

    def wait_beyond(self, epoch: int, seconds: float) -> Record:
        """The first record of a later epoch.

        Raises:
            PeerLostError: none came in time, or there is no world any more.
        """
        ...

    def part(self, epoch: int, seconds: float) -> None:
        """Say that this rank has nothing more to do in an epoch's world; wait until plan rank 0 has
        heard it of all that are there, and the world is over for all of them alike.

        Raises:
            PeerLostError: the record has changed before that, not all came in time, or there is
                no world any more.
        """
        ...

    def close(self) -> None:
        """Leave a world that is over."""
        ...


class Notebook:
    """A record, written by one thread and read by others.

    Attributes:
        is_over: all ranks have parted; the record changes no more.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.record = Record()
        self.ending = ""
        self.is_over = False

    def write(self, record: Record) -> None:
        with self._changed:
            self.record = record
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        with self._changed:
            self.ending = self.ending or reason
            self._changed.notify_all()

    def finish(self) -> None:
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    def wait_until_over(self, epoch: int, seconds: float) -> None:
        """As `Lifeline.part` has it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.is_over or self.ending or self.record.epoch > epoch, seconds
            )
            if self.is_over:
                return
            if self.ending:
                raise PeerLostError(self.ending)
            if self.record.epoch > epoch:
                raise PeerLostError("a rank was lost, or is there again, as all were to end")
            raise PeerLostError(f"not all ranks have come to the end within {seconds:g} s")

    def wait_beyond(self, epoch: int, seconds: float) -> Record:
        """As Lifeline has it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.record.epoch > epoch or self.ending or self.is_over, seconds
            )
            if self.ending or self.is_over:
                raise PeerLostError(self.ending or "the ranks that served have ended meanwhile")
            if self.record.epoch == epoch:
                raise PeerLostError(
                    f"a rank did not answer, and plan rank 0 still hears of all after {seconds:g} s"
                )
            return self.record
