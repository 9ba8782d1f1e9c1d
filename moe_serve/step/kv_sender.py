"""The end that prefills: its scheduler's prompts are handed over by all ranks of its group.

A request is offered when its first chunk is about to be computed. Its pages are kept until no rank
of the attention group reads them any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.group_mail import GroupMail
from moe_serve.step.group_notes import Begin, Drop, Ended, Hold, Note
from moe_serve.step.kv_sending_part import SendingPart
from moe_serve.step.share import LEADER
from moe_serve.types import Batch, Request


@dataclass(slots=True)
class _Outgoing:
    """Attributes:
    members: those whose part has not ended.
    page_ids: as all members know them.
    """

    members: set[int]
    page_ids: tuple[int, ...] = ()
    is_dropped: bool = False


class KvSender:
    """Implements Handover.

    Args:
        part: this rank's own; the others' are told by mail.
    """

    def __init__(self, part: SendingPart, mail: GroupMail, scheduler: Scheduler) -> None:
        self.counts = part.counts
        self._part = part
        self._scheduler = scheduler
        self._mail = mail
        self._outgoing: dict[str, _Outgoing] = {}
        self._news: list[tuple[int, Note]] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self._part.descriptors

    @property
    def has_notes(self) -> bool:
        return self._mail.has_notes

    def add(self, request: Request) -> None:
        assert request.decode_rank is not None, "a rank that prefills has no tokens to give"

    def refuse(self, request: Request, reason: str) -> None:
        """The other end need not wait for the other members' offers: this one's fails at once."""
        if request.request_id not in self._outgoing:
            self._outgoing[request.request_id] = _Outgoing({LEADER}, is_dropped=True)
            self._part.obey(_begin(request))
            self._part.obey(Drop(request.request_id, reason))

    def poll(self) -> bool:
        num_before = len(self._outgoing)
        self._look_after_pages()
        news, self._news = self._news, []
        for member, note in (*news, *((LEADER, own) for own in self._part.poll())):
            assert isinstance(note, Ended)
            self._end(member, note)
        return len(self._outgoing) < num_before

    def begin_step(self) -> None:
        for request in self._scheduler.handovers.take_admitted():
            if request.request_id not in self._outgoing:
                members = {LEADER, *self._mail.addressees}
                self._outgoing[request.request_id] = _Outgoing(members)
                self._tell(_begin(request))
        self._look_after_pages()

    def letter(self) -> bytes:
        return self._mail.seal()

    def share(self, batch: Batch, letters: Sequence[bytes]) -> None:
        self._news += self._mail.read(letters)
        self._part.share(batch)

    def after_layer(self, layer: int) -> None:
        self._part.after_layer(layer)

    def _tell(self, note: Note) -> None:
        """All members, this one among them."""
        self._part.obey(note)
        self._mail.write(note)

    def _look_after_pages(self) -> None:
        """Pages may have become others', or given way to equal ones of the prefix tree."""
        for request_id, outgoing in self._outgoing.items():
            if outgoing.is_dropped:
                continue
            held = self._scheduler.handovers.held(request_id)
            if held is None:
                self._drop(request_id, "the rank that computes it has given it up")
            elif held.page_ids != outgoing.page_ids:
                outgoing.page_ids = held.page_ids
                self._tell(Hold(request_id, held.page_ids, held.num_computed))

    def _drop(self, request_id: str, reason: str) -> None:
        outgoing = self._outgoing[request_id]
        if not outgoing.is_dropped:
            outgoing.is_dropped = True
            self._tell(Drop(request_id, reason))

    def _end(self, member: int, ended: Ended) -> None:
        if (outgoing := self._outgoing.get(ended.request_id)) is None:
            return
        outgoing.members.discard(member)
        if ended.failure:
            self._drop(ended.request_id, ended.failure)
        if not outgoing.members:
            del self._outgoing[ended.request_id]
            self._scheduler.abort(ended.request_id)


def _begin(request: Request) -> Begin:
    assert request.decode_rank is not None
    return Begin(request.request_id, request.decode_rank, len(request.prompt_ids))
