"""Communicators of one mpirun's ranks, opened by all of them together, though they may be called
away in the midst of it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moe_comm.transport.exchange import WaitLoop

if TYPE_CHECKING:
    from mpi4py import MPI

# Until those that are behind have heard why.
_PAUSE_SECONDS = 0.001


@dataclass(frozen=True, slots=True, eq=False)
class _Round:
    """Attributes:
    colour: of this rank.
    own: this rank's opening, and its negative; MPI uses it until the round is over.
    agreed: then the largest opening of all ranks, and the smallest one's negative.
    """

    colour: int | None
    own: array[int]
    agreed: array[int]
    request: MPI.Request

    @property
    def is_unanimous(self) -> bool:
        return self.agreed == self.own


class MpirunGroups:
    """MPI_Comm_split blocks until all have come to it, and nothing breaks it off. Therefore ranks
    first compare which opening they have come to, in rounds that can be broken off, and split
    where it is the same for all of them. A rank that was called away from a round takes it up
    again before its next one: the others may have split by it, and wait there.

    Args:
        communicator: of the mpirun's ranks.
    """

    def __init__(self, communicator: MPI.Comm) -> None:
        self._communicator = communicator
        self._round: _Round | None = None
        # To free one takes all of its ranks.
        self._unwanted: list[MPI.Comm] = []

    def open(
        self,
        opening: int,
        colour: int | None,
        key: int,
        deadline_seconds: float,
        should_stop: Callable[[], bool],
    ) -> MPI.Comm | None:
        """The ranks that gave one colour, in the order of their keys; None for those without.

        Args:
            opening: the same for all ranks that mean the same, and never used twice.

        Raises:
            PeerLostError: not all ranks came in time, or control said stop.
        """
        end = time.monotonic() + deadline_seconds
        while True:
            if self._round is None:
                self._round = self._begin(opening, colour)
            met = self._round
            loop = WaitLoop(end - time.monotonic(), should_stop)
            loop.until(met.request.Test, "the other ranks to open an exchange")
            self._round = None
            part = self._split(met, key)
            if met.is_unanimous and met.own[0] == opening:
                return part
            if part is not None:
                self._unwanted.append(part)
            time.sleep(_PAUSE_SECONDS)

    def _begin(self, opening: int, colour: int | None) -> _Round:
        from mpi4py import MPI

        own, agreed = array("q", [opening, -opening]), array("q", [0, 0])
        request = self._communicator.Iallreduce(own, agreed, MPI.MAX)
        return _Round(colour, own, agreed, request)

    def _split(self, met: _Round, key: int) -> MPI.Comm | None:
        from mpi4py import MPI

        if not met.is_unanimous:
            return None
        colour = MPI.UNDEFINED if met.colour is None else met.colour
        part = self._communicator.Split(colour, key)
        return None if met.colour is None else part
