"""A rank's wires to those of other mpiruns, plan rank 0 aside: is there still a way to them?"""

import socket
from collections.abc import Mapping, Sequence

from moe_comm.transport.lifeline_line import Beat, BeatLine

# Before the first beat: the other end may still open its other wires.
_FIRST_BEAT_SECONDS = 30.0


class Wires:
    """Nothing but beats goes over a wire. So one is silent only where the way is cut or the other
    end is stopped, and never because a peer does not take what is sent to it while it computes, as
    a connection of an exchange is."""

    def __init__(self, silent_seconds: float) -> None:
        self._silent_seconds = silent_seconds
        self._epoch = -1
        self._lines: dict[int, BeatLine] = {}

    @property
    def connections(self) -> Sequence[socket.socket]:
        return [line.connection for line in self._lines.values()]

    def renew(self, epoch: int, connections: Mapping[int, socket.socket]) -> None:
        """Those of an epoch's world, by plan rank, in place of all others."""
        self.close()
        self._epoch = epoch
        self._lines = {rank: BeatLine(each) for rank, each in connections.items()}
        for line in self._lines.values():
            line.heard += _FIRST_BEAT_SECONDS

    def beat(self) -> None:
        for line in self._lines.values():
            line.send(Beat(self._epoch))

    def receive(self) -> None:
        for rank, line in list(self._lines.items()):
            line.receive()
            # It has ended, or has others by now: it is plan rank 0 that hears of an end.
            if line.is_closed:
                self._lines.pop(rank).close()

    def silent(self, epoch: int) -> tuple[int, ...]:
        """Ranks of that epoch's world that nothing is heard of any more."""
        if epoch != self._epoch:
            return ()
        return tuple(
            rank for rank, line in self._lines.items() if line.is_silent(self._silent_seconds)
        )

    def close(self) -> None:
        for line in self._lines.values():
            line.close()
        self._lines = {}
