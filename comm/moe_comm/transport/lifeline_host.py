"""Plan rank 0's end of all lines: it alone says who is lost, a whole mpirun at a time."""

import select
import socket
import threading
from collections.abc import Iterable, Mapping

from moe_comm.membership import Membership
from moe_comm.transport.lifeline import BEAT_SECONDS, SILENT_SECONDS, Notebook, Record
from moe_comm.transport.lifeline_line import Beat, BeatLine

_HOST = 0


class HostLifeline:
    """Implements Lifeline.

    With one rank its whole mpirun counts as lost: the launcher ends the others. The mpirun of plan
    rank 0 cannot be done without, and its launcher knows without beats whether its ranks are
    there.

    Args:
        connections: to all other ranks by plan rank, after the handshake.
    """

    def __init__(self, world: Membership, connections: Mapping[int, socket.socket]) -> None:
        self._mpiruns = {member.plan_rank: member.mpirun for member in world.members}
        self._lines = {rank: BeatLine(connection) for rank, connection in connections.items()}
        self._notebook = Notebook()
        self._accusation = Beat(0)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lifelines", daemon=True)
        self._thread.start()

    @property
    def record(self) -> Record:
        return self._notebook.record

    @property
    def ending(self) -> str:
        return self._notebook.ending

    def accuse(self, epoch: int, ranks: frozenset[int]) -> None:
        self._accusation = Beat(epoch, tuple(sorted(ranks)))

    def wait_beyond(self, epoch: int, seconds: float) -> Record:
        return self._notebook.wait_beyond(epoch, seconds)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(SILENT_SECONDS)
        self._tell(is_last=True)
        for line in self._lines.values():
            line.close()

    def _watch(self) -> None:
        while not (self._is_over.is_set() or self.ending):
            self._tell()
            open_lines = [each for each in self._lines.values() if not each.is_closed]
            select.select([each.connection for each in open_lines], [], [], BEAT_SECONDS)
            # All that has come is read before anybody is judged: this process may have slept.
            beats = {rank: line.receive() for rank, line in self._lines.items()}
            self._lose(self._gone())
            self._hear(_HOST, self._accusation)
            for rank, beat in beats.items():
                if beat is not None:
                    self._hear(rank, beat)

    def _tell(self, is_last: bool = False) -> None:
        beat = Beat(self.record.epoch, tuple(sorted(self.record.lost)), is_last)
        for line in self._lines.values():
            if not line.is_closed:
                line.send(beat)

    def _gone(self) -> list[int]:
        return [
            rank
            for rank, line in self._lines.items()
            if not line.has_left
            and (line.is_closed or (self._is_foreign(rank) and line.is_silent(SILENT_SECONDS)))
        ]

    def _hear(self, accuser: int, beat: Beat) -> None:
        """Part two ranks that cannot reach each other: plan rank 0's own mpirun stays."""
        if beat.epoch != self.record.epoch or not beat.ranks:
            return
        foreign = [rank for rank in beat.ranks if self._is_foreign(rank)]
        self._lose(foreign or [accuser])

    def _is_foreign(self, rank: int) -> bool:
        return self._mpiruns[rank] != self._mpiruns[_HOST]

    def _lose(self, ranks: Iterable[int]) -> None:
        mpiruns = {self._mpiruns[rank] for rank in ranks}
        if self._mpiruns[_HOST] in mpiruns:
            self._notebook.end("a rank of the mpirun of plan rank 0 has ended; see its log")
            return
        lost = {rank for rank, mpirun in self._mpiruns.items() if mpirun in mpiruns}
        lost -= self.record.lost
        if not lost:
            return
        for rank in lost:
            self._lines.pop(rank).close()
        self._notebook.write(Record(self.record.epoch + 1, self.record.lost | lost))
        self._tell()
