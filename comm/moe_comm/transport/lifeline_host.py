"""Plan rank 0's end of all lines: it alone says who is lost, a whole mpirun at a time."""

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

from moe_comm.membership import Member, Membership
from moe_comm.transport.lifeline import Notebook, Record, beat_seconds
from moe_comm.transport.lifeline_cuts import Cuts
from moe_comm.transport.lifeline_door import Door
from moe_comm.transport.lifeline_line import Beat, BeatLine
from moe_comm.transport.lifeline_return import Returning

_HOST = 0
# For which reports of one cut are collected: those of other ranks come a beat or two later.
_CUT_BEATS = 4


class HostLifeline:
    """Implements Lifeline.

    With one rank its whole mpirun counts as lost: the launcher ends the others. The mpirun of plan
    rank 0 cannot be done without, and its launcher knows without beats whether its ranks are
    there.

    Args:
        connections: to all other ranks by plan rank, after the handshake.
        silent_seconds: after which a rank counts as lost.
        door: where those come that were lost and are there again; without one nobody does.

    Attributes:
        members: as they are, and were where they are lost; in order of plan rank.
    """

    def __init__(
        self,
        world: Membership,
        connections: Mapping[int, socket.socket],
        silent_seconds: float,
        door: Door | None = None,
    ) -> None:
        self.silent_seconds = silent_seconds
        self.members: Mapping[int, Member] = {each.plan_rank: each for each in world.members}
        self._lines = {rank: BeatLine(connection) for rank, connection in connections.items()}
        self._notebook = Notebook()
        self._accusation = Beat(0)
        self._cuts = Cuts(_CUT_BEATS * beat_seconds(silent_seconds))
        # Of mpiruns that have come back, the epoch since when they are there.
        self._since: dict[int, int] = {}
        # The newest epoch in whose world each rank has nothing more to do.
        self._done: dict[int, int] = {}
        # Written by other threads; all else of those that come back is this object's own.
        self._expected: deque[Returning] = deque()
        self._callers: deque[tuple[int, bytes, socket.socket]] = deque()
        self._returning: list[Returning] = []
        self._door = door
        if door is not None:
            door.open(lambda *caller: self._callers.append(caller))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lifelines", daemon=True)
        self._thread.start()

    @property
    def record(self) -> Record:
        return self._notebook.record

    @property
    def address(self) -> str:
        """HOST:PORT for those that come back."""
        return self._door.address if self._door is not None else ""

    def expect(self, returning: Returning) -> None:
        """Take some lost ranks back once all of them have called."""
        self._expected.append(returning)

    @property
    def ending(self) -> str:
        return self._notebook.ending

    def accuse(self, epoch: int, ranks: frozenset[int]) -> None:
        self._accusation = Beat(epoch, tuple(sorted(ranks)))

    def report_cut(self, epoch: int, ranks: frozenset[int]) -> None:
        # Whoever is cut off from here has to go.
        self.accuse(epoch, ranks)

    def watch(self, epoch: int, wires: Mapping[int, socket.socket]) -> None:
        assert not wires, "plan rank 0 has lines"

    def wait_beyond(self, epoch: int, seconds: float) -> Record:
        return self._notebook.wait_beyond(epoch, seconds)

    def part(self, epoch: int, seconds: float) -> None:
        self._done[_HOST] = epoch
        self._notebook.wait_until_over(epoch, seconds)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(self.silent_seconds)
        if self._door is not None:
            self._door.close()
        self._tell(is_last=True)
        for line in self._lines.values():
            line.close()
        for returning in self._returning:
            returning.close()

    def _watch(self) -> None:
        due = time.monotonic()
        while not (self._is_over.is_set() or self.ending):
            if (now := time.monotonic()) >= due:
                self._tell()
                due = now + beat_seconds(self.silent_seconds)
            open_lines = [each for each in self._lines.values() if not each.is_closed]
            select.select([each.connection for each in open_lines], [], [], due - now)
            # All that has come is read before anybody is judged: this process may have slept.
            beats = {rank: line.receive() for rank, line in self._lines.items()}
            self._lose(self._gone())
            self._hear(_HOST, self._accusation)
            for rank, beat in beats.items():
                if beat is not None:
                    self._hear(rank, beat)
            self._part_those_cut_off()
            self._attend_callers()
            self._take_back()
            self._end_if_all_are_done()

    def _tell(self, is_last: bool = False) -> None:
        record = self.record
        beat = Beat(record.epoch, tuple(sorted(record.lost)), is_last, record.addresses)
        waiting = [line for each in self._returning for line in each.lines.values()]
        for line in (*self._lines.values(), *waiting):
            if not line.is_closed:
                line.send(beat)

    def _gone(self) -> list[int]:
        return [
            rank
            for rank, line in self._lines.items()
            if not line.has_left
            and (line.is_closed or (self._is_foreign(rank) and line.is_silent(self.silent_seconds)))
        ]

    def _hear(self, accuser: int, beat: Beat) -> None:
        """Part two ranks that cannot reach each other: plan rank 0's own mpirun stays."""
        if beat.is_done:
            self._done[accuser] = beat.epoch
        if beat.epoch != self.record.epoch:
            return
        for rank in beat.cut_off:
            self._cuts.note(self.members[accuser].mpirun, self.members[rank].mpirun)
        if beat.ranks:
            foreign = [rank for rank in beat.ranks if self._is_foreign(rank)]
            self._lose(foreign or [accuser])

    def _part_those_cut_off(self) -> None:
        lost = self._cuts.settle(self.members[_HOST].mpirun, self._weakness)
        if lost:
            self._lose(rank for rank in self._lines if self.members[rank].mpirun in lost)

    def _weakness(self, mpirun: int) -> tuple[float, ...]:
        """Those go first that are all but silent here too; else the newest, the smallest, the
        last."""
        lines = [line for rank, line in self._lines.items() if self.members[rank].mpirun == mpirun]
        is_quiet = any(
            line.is_silent(_CUT_BEATS * beat_seconds(self.silent_seconds)) for line in lines
        )
        return is_quiet, self._since.get(mpirun, 0), -len(lines), mpirun

    def _is_foreign(self, rank: int) -> bool:
        return self.members[rank].mpirun != self.members[_HOST].mpirun

    def _lose(self, ranks: Iterable[int]) -> None:
        mpiruns = {self.members[rank].mpirun for rank in ranks}
        if self.members[_HOST].mpirun in mpiruns:
            self._notebook.end("a rank of the mpirun of plan rank 0 has ended; see its log")
            return
        lost = {rank for rank, member in self.members.items() if member.mpirun in mpiruns}
        lost -= self.record.lost
        if not lost:
            return
        for rank in lost:
            self._lines.pop(rank).close()
        self._write(self.record.lost | lost)

    def _attend_callers(self) -> None:
        while self._expected:
            newest = self._expected.popleft()
            for earlier in [
                each for each in self._returning if each.members.keys() & newest.members
            ]:
                earlier.close()
                self._returning.remove(earlier)
            self._returning.append(newest)
        while self._callers:
            rank, pass_word, connection = self._callers.popleft()
            meant = [each for each in self._returning if each.pass_word == pass_word]
            if meant and rank in meant[0].members:
                meant[0].lines[rank] = BeatLine(connection)
            else:
                connection.close()

    def _take_back(self) -> None:
        for returning in list(self._returning):
            returning.drop_ended(self.silent_seconds)
            ranks = returning.members.keys()
            if not returning.is_complete or not ranks <= self.record.lost:
                continue
            self._returning.remove(returning)
            self._lines |= returning.lines
            self.members = {**self.members, **returning.members}
            self._write(self.record.lost - ranks, returning.members.values())
            self._since |= {each.mpirun: self.record.epoch for each in returning.members.values()}

    def _end_if_all_are_done(self) -> None:
        """Here and nowhere else, between two records: nobody leaves a world that others go on in,
        or waits for one that has left."""
        if all(self._done.get(rank) == self.record.epoch for rank in (_HOST, *self._lines)):
            self._tell(is_last=True)
            self._notebook.finish()
            self._is_over.set()

    def _write(self, lost: frozenset[int], returned: Iterable[Member] = ()) -> None:
        known = dict(self.record.addresses)
        known |= {member.plan_rank: member.address for member in returned}
        addresses = tuple(sorted(known.items()))
        self._cuts.forget()
        self._notebook.write(Record(self.record.epoch + 1, lost, addresses))
        self._tell()
