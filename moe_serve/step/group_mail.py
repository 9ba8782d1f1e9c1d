"""Notes between the leader of an attention group and its members, carried by each step's batch."""

from collections import deque
from collections.abc import Sequence

import msgspec

from moe_serve.step.group_notes import Note
from moe_serve.step.share import LEADER


class _Letter(msgspec.Struct, frozen=True, array_like=True):
    """Attributes:
    first: number of the first note.
    seen: how many notes of each addressee have been read.
    """

    first: int
    seen: tuple[int, ...]
    notes: tuple[Note, ...]


class GroupMail:
    """One rank's box: the leader writes to all members, each member to the leader.

    A note goes with every step until all its addressees have said that they saw it, and is read
    once: a step that breaks off for some ranks loses none.

    Args:
        index: of this rank in its group.
        size: of the group; one rank alone has nobody to write to.
    """

    def __init__(self, index: int, size: int) -> None:
        others = range(LEADER + 1, size) if index == LEADER else (LEADER,)
        self._seen = dict.fromkeys(others, 0)
        # Where this rank stands in the letters of its addressees.
        self._place = 0 if index == LEADER else index - 1
        self._first = 0
        self._notes: deque[Note] = deque()

    @property
    def addressees(self) -> tuple[int, ...]:
        """Members by index."""
        return tuple(self._seen)

    @property
    def has_notes(self) -> bool:
        """Whether somebody may not have read what was written: a step would carry it."""
        return bool(self._notes)

    def write(self, note: Note) -> None:
        if self._seen:
            self._notes.append(note)

    def seal(self) -> bytes:
        """What goes with the next step."""
        if not self._seen:
            return b""
        letter = _Letter(self._first, tuple(self._seen.values()), tuple(self._notes))
        return msgspec.msgpack.encode(letter)

    def read(self, letters: Sequence[bytes]) -> list[tuple[int, Note]]:
        """New notes with their writers.

        Args:
            letters: that came with a step, by member.
        """
        news: list[tuple[int, Note]] = []
        num_read = []
        for other, num_seen in self._seen.items():
            letter = msgspec.msgpack.decode(letters[other], type=_Letter)
            news += [(other, note) for note in letter.notes[num_seen - letter.first :]]
            self._seen[other] = letter.first + len(letter.notes)
            num_read.append(letter.seen[self._place])
        while num_read and self._first < min(num_read):
            self._notes.popleft()
            self._first += 1
        return news
