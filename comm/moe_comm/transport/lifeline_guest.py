"""Any other rank's end of its line to plan rank 0."""

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping

from moe_comm.transport.lifeline import Notebook, Record, beat_seconds
from moe_comm.transport.lifeline_line import Beat, BeatLine
from moe_comm.transport.lifeline_wires import Wires


class GuestLifeline:
    """Implements Lifeline.

    Args:
        connection: to plan rank 0, after the handshake.
        silent_seconds: after which plan rank 0 counts as lost.
    """

    def __init__(self, connection: socket.socket, silent_seconds: float) -> None:
        self._line = BeatLine(connection)
        self._silent_seconds = silent_seconds
        self._notebook = Notebook()
        self._accusation = self._cut = Beat(0)
        # Handed over by other threads; `_wires` are this object's thread's own.
        self._fresh_wires: deque[tuple[int, Mapping[int, socket.socket]]] = deque()
        self._wires = Wires(silent_seconds)
        self._done_epoch = -1
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="lifeline", daemon=True)
        self._thread.start()

    @property
    def record(self) -> Record:
        return self._notebook.record

    @property
    def ending(self) -> str:
        return self._notebook.ending

    def accuse(self, epoch: int, ranks: frozenset[int]) -> None:
        self._accusation = Beat(epoch, tuple(sorted(ranks)))

    def report_cut(self, epoch: int, ranks: frozenset[int]) -> None:
        self._cut = Beat(epoch, tuple(sorted(ranks)))

    def watch(self, epoch: int, wires: Mapping[int, socket.socket]) -> None:
        self._fresh_wires.append((epoch, wires))

    def wait_beyond(self, epoch: int, seconds: float) -> Record:
        return self._notebook.wait_beyond(epoch, seconds)

    def part(self, epoch: int, seconds: float) -> None:
        self._done_epoch = epoch
        self._notebook.wait_until_over(epoch, seconds)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(self._silent_seconds)
        self._line.send(Beat(self.record.epoch, is_last=True))
        self._line.close()
        self._take_wires()
        self._wires.close()

    def _follow(self) -> None:
        due = time.monotonic()
        while not (self._is_over.is_set() or self.ending):
            if (now := time.monotonic()) >= due:
                self._line.send(self._beat(self.record.epoch))
                self._wires.beat()
                due = now + beat_seconds(self._silent_seconds)
            select.select([self._line.connection, *self._wires.connections], [], [], due - now)
            # All that has come is read before anybody is judged: this process may have slept.
            self._take_wires()
            self._wires.receive()
            self._take(self._line.receive())

    def _beat(self, epoch: int) -> Beat:
        accusation, cut = self._accusation, self._cut
        accused = accusation.ranks if accusation.epoch == epoch else ()
        found = cut.ranks if cut.epoch == epoch else ()
        return Beat(
            epoch,
            accused,
            is_done=self._done_epoch == epoch and not accused,
            cut_off=tuple({*found, *self._wires.silent(epoch)}),
        )

    def _take_wires(self) -> None:
        while self._fresh_wires:
            self._wires.renew(*self._fresh_wires.popleft())

    def _take(self, beat: Beat | None) -> None:
        if beat is not None and beat.epoch > self.record.epoch:
            self._notebook.write(Record(beat.epoch, frozenset(beat.ranks), beat.addresses))
        if self._line.has_left:
            self._notebook.finish()
            self._is_over.set()
        elif self._line.is_closed:
            self._notebook.end(
                "plan rank 0 has closed its line to this rank: it has ended, or it counts this "
                "rank's mpirun as lost; see the log of plan rank 0"
            )
        elif self._line.is_silent(self._silent_seconds):
            self._notebook.end(
                f"plan rank 0 has been silent for {self._silent_seconds:g} s: it was stopped, or "
                "the link to it is cut"
            )
