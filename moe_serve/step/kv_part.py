"""One rank's part of its attention group's handovers, and how a rank follows that leads none."""

from collections.abc import Sequence
from typing import Protocol

from moe_serve.step.group_mail import GroupMail
from moe_serve.step.group_notes import Note
from moe_serve.step.handover import HandoverCounts
from moe_serve.types import Batch


class KvPart(Protocol):
    """Moves this rank's heads; all calls return at once and come from the engine's thread."""

    counts: HandoverCounts

    @property
    def descriptors(self) -> Sequence[int]: ...

    def obey(self, note: Note) -> None:
        """Do what the leader of the attention group says."""
        ...

    def poll(self) -> list[Note]:
        """Take in what has come -> what the leader must know."""
        ...

    def share(self, batch: Batch) -> None:
        """The attention group is about to compute a batch."""
        ...

    def after_layer(self, layer: int) -> None:
        """One layer's keys and values of the batch are in their pages."""
        ...


class KvMember:
    """Implements HandoverPart for a rank that follows the leader of its attention group."""

    def __init__(self, part: KvPart, mail: GroupMail) -> None:
        self.counts = part.counts
        self._part = part
        self._mail = mail

    @property
    def descriptors(self) -> Sequence[int]:
        return self._part.descriptors

    @property
    def has_notes(self) -> bool:
        return self._mail.has_notes

    def poll(self) -> bool:
        for note in self._part.poll():
            self._mail.write(note)
        return False

    def letter(self) -> bytes:
        return self._mail.seal()

    def share(self, batch: Batch, letters: Sequence[bytes]) -> None:
        for _, note in self._mail.read(letters):
            self._part.obey(note)
        self._part.share(batch)

    def after_layer(self, layer: int) -> None:
        self._part.after_layer(layer)
