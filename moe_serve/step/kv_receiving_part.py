"""One rank's part of prompts that others compute for its group: its heads land in their pages."""

from collections.abc import Mapping, Sequence

from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import Completed, Landed, Offered, OfferFailed, ReceiveFailed

from moe_serve.step.group_notes import Accept, Drop, Ended, Note, Ready
from moe_serve.step.handover import HandoverCounts
from moe_serve.step.kv_peers import KvPeers
from moe_serve.step.rank_kv import RankKv
from moe_serve.types import Batch


class ReceivingPart:
    """Implements KvPart.

    Args:
        senders: names of the ends that send to this rank, by the rank that leads them.
    """

    def __init__(
        self,
        endpoint: KvEndpoint,
        peers: KvPeers,
        kv: RankKv,
        senders: Mapping[int, Sequence[str]],
    ) -> None:
        self.counts = HandoverCounts()
        self._endpoint = endpoint
        self._peers = peers
        self._kv = kv
        self._senders = senders
        self._offered: set[str] = set()
        self._pages: dict[str, tuple[int, ...]] = {}
        self._news: list[Note] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._endpoint.fileno(),)

    def is_connected(self, prefill_rank: int) -> bool:
        """Whether all that send to this rank, of those that a rank leads, are there."""
        return all(map(self._peers.is_ready, self._senders[prefill_rank]))

    def obey(self, note: Note) -> None:
        """Do what the leader says."""
        match note:
            case Accept():
                self._accept(note)
            case Drop():
                self._drop(note)

    def poll(self) -> list[Note]:
        """Take in what has come; a request may end that was never ready."""
        for event in self._endpoint.poll():
            self._peers.take(event)
            match event:
                case Offered(request_id):
                    self._offered.add(request_id)
                    self._news.append(Ready(request_id))
                case Landed():
                    self._land(event)
                case OfferFailed(request_id, reason):
                    self._news.append(Ended(request_id, reason))
                case Completed(request_id):
                    self._end(Ended(request_id))
                case ReceiveFailed(request_id, reason):
                    self._end(Ended(request_id, reason))
        news, self._news = self._news, []
        return news

    def share(self, batch: Batch) -> None: ...

    def after_layer(self, layer: int) -> None: ...

    def _accept(self, note: Accept) -> None:
        if note.request_id not in self._offered:
            self._news.append(Ended(note.request_id, "its offer has failed meanwhile"))
            return
        self._pages[note.request_id] = note.page_ids
        self._endpoint.accept(note.request_id, note.first_token)

    def _drop(self, note: Drop) -> None:
        """Write no more to its pages, and tell no more of it."""
        self._pages.pop(note.request_id, None)
        if note.request_id in self._offered:
            self._offered.remove(note.request_id)
            self._endpoint.refuse(note.request_id, note.reason)

    def _land(self, event: Landed) -> None:
        if (page_ids := self._pages.get(event.request_id)) is not None:
            self._kv.write(event.layer, page_ids, event.first_token, event.first_head, event.parts)

    def _end(self, ended: Ended) -> None:
        self._pages.pop(ended.request_id, None)
        if ended.request_id in self._offered:
            self._offered.remove(ended.request_id)
            self._news.append(ended)
