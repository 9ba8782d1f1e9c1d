"""The end that decodes: keys and values land in a waiting sequence's pages, on all ranks of its
attention group.

Whatever keeps them from coming, these ranks then compute the prompt by themselves.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.group_mail import GroupMail
from moe_serve.step.group_notes import Accept, Drop, Ended, Note, Ready
from moe_serve.step.kv_receiving_part import ReceivingPart
from moe_serve.step.share import LEADER
from moe_serve.types import Batch, Request


@dataclass(slots=True)
class _Incoming:
    """Attributes:
    deadline: by which it must have been asked for here, and offered to all members.
    prefill_rank: that computes it; None while its request is on its way from the front end.
    ready, complete: members to which all their heads are offered, and have come.
    has_failed: some member gets no more of it.
    """

    deadline: float
    prefill_rank: int | None = None
    ready: set[int] = field(default_factory=set)
    complete: set[int] = field(default_factory=set)
    has_failed: bool = False


class KvReceiver:
    """Implements Handover.

    Args:
        part: this rank's own; the others' are told by mail.
        offer_seconds: after which a prompt that nobody has begun to compute is computed here; and
            after which an offer of a prompt that nobody asked for is refused.
    """

    def __init__(
        self,
        part: ReceivingPart,
        mail: GroupMail,
        offer_seconds: float,
        scheduler: Scheduler,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = part.counts
        self._part = part
        self._scheduler = scheduler
        self._mail = mail
        self._offer_seconds = offer_seconds
        self._now = now
        self._members = frozenset((LEADER, *mail.addressees))
        self._incoming: dict[str, _Incoming] = {}
        self._news: list[tuple[int, Note]] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self._part.descriptors

    @property
    def has_notes(self) -> bool:
        return self._mail.has_notes

    def add(self, request: Request) -> None:
        if request.prefill_rank is None:
            return
        incoming = self._known(request.request_id)
        incoming.prefill_rank = request.prefill_rank
        incoming.deadline = self._now() + self._offer_seconds
        if incoming.has_failed:
            self._fail(request.request_id)
        else:
            self._offer(request.request_id)
            self._look_after(request.request_id, incoming)

    def refuse(self, request: Request, reason: str) -> None:
        raise AssertionError("a rank that decodes computes no prompt for others")

    def poll(self) -> bool:
        """Take in what has come, and look after what has not."""
        num_before = len(self._incoming)
        self._look_after_pages()
        news, self._news = self._news, []
        for member, note in (*news, *((LEADER, own) for own in self._part.poll())):
            self._take(member, note)
        for request_id, incoming in tuple(self._incoming.items()):
            self._look_after(request_id, incoming)
        return len(self._incoming) < num_before

    def begin_step(self) -> None:
        """What was found in the prefix cache at admission need not come."""
        self._look_after_pages()
        for request in self._scheduler.handovers.take_admitted():
            held = self._scheduler.handovers.held(request.request_id)
            assert held is not None
            self._tell(Accept(request.request_id, held.num_computed, held.page_ids))

    def letter(self) -> bytes:
        return self._mail.seal()

    def share(self, batch: Batch, letters: Sequence[bytes]) -> None:
        self._news += self._mail.read(letters)

    def after_layer(self, layer: int) -> None: ...

    def _tell(self, note: Note) -> None:
        """All members, this one among them."""
        self._part.obey(note)
        self._mail.write(note)

    def _known(self, request_id: str) -> _Incoming:
        early = _Incoming(self._now() + self._offer_seconds)
        return self._incoming.setdefault(request_id, early)

    def _take(self, member: int, note: Note) -> None:
        match note:
            case Ready(request_id):
                self._known(request_id).ready.add(member)
                self._offer(request_id)
            case Ended(request_id, ""):
                self._complete(request_id, member)
            case Ended(request_id):
                self._known(request_id).has_failed = True
                self._fail(request_id)

    def _look_after_pages(self) -> None:
        """Those of a sequence that was ended or set back meanwhile may be others' from now on."""
        for request_id, incoming in tuple(self._incoming.items()):
            is_wanted = incoming.prefill_rank is not None
            if is_wanted and not self._scheduler.handovers.is_expected(request_id):
                self._forget(request_id, "it was ended or set back where it is decoded")

    def _look_after(self, request_id: str, incoming: _Incoming) -> None:
        """Give up what is not offered in time, or by somebody who is not there."""
        is_late = self._now() >= incoming.deadline
        if incoming.prefill_rank is None:
            if is_late:
                self._forget(request_id, "nobody asked for it where it is decoded")
        elif incoming.ready != self._members and (
            is_late or not self._part.is_connected(incoming.prefill_rank)
        ):
            self._fail(request_id)

    def _offer(self, request_id: str) -> None:
        """Have the scheduler find pages for what all members are offered."""
        incoming = self._incoming[request_id]
        is_wanted = incoming.prefill_rank is not None
        if is_wanted and incoming.ready == self._members:
            self._scheduler.handovers.offer(request_id)

    def _complete(self, request_id: str, member: int) -> None:
        if (incoming := self._incoming.get(request_id)) is None:
            return
        incoming.complete.add(member)
        if incoming.complete == self._members:
            del self._incoming[request_id]
            self._scheduler.handovers.land(request_id)
            self.counts.num_handovers += 1

    def _fail(self, request_id: str) -> None:
        """Compute a prompt here, if it is still waited for."""
        if self._incoming[request_id].prefill_rank is None:
            return
        self._forget(request_id, "it is computed where it is decoded")
        if self._scheduler.handovers.is_expected(request_id):
            self._scheduler.handovers.compute_here(request_id)
            self.counts.num_failures += 1

    def _forget(self, request_id: str, reason: str) -> None:
        del self._incoming[request_id]
        self._tell(Drop(request_id, reason))
