"""One rank's part of prompts that its group computes for others: its heads leave layer by layer.

What is computed before the other end accepts it, and what could not leave at once, follows as soon
as it can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moe_comm.kv.block import block_bytes
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import Accepted, Delivered, KvEvent, SendFailed

from moe_serve.step.group_notes import Begin, Drop, Ended, Hold, Note
from moe_serve.step.handover import HandoverCounts
from moe_serve.step.kv_peers import KvPeers
from moe_serve.step.rank_kv import RankKv
from moe_serve.types import Batch

# Longer ones gain nothing, and what is copied at once should stay small.
_TOKENS_PER_BLOCK = 1024


@dataclass(slots=True)
class _Outgoing:
    """Attributes:
    num_computed: leading tokens that lie in the pages, in all layers.
    due: the next token of each layer; none before it is accepted, and none after it was dropped.
    """

    peers: Sequence[str]
    page_ids: tuple[int, ...] = ()
    num_computed: int = 0
    due: list[int] | None = None
    is_dropped: bool = False


class SendingPart:
    """Implements KvPart.

    Args:
        receivers: names of the ends that this rank sends to, by the rank that leads them; none
            where others send all that they need.
    """

    def __init__(
        self,
        endpoint: KvEndpoint,
        peers: KvPeers,
        kv: RankKv,
        receivers: Mapping[int, Sequence[str]],
    ) -> None:
        self.counts = HandoverCounts()
        self._endpoint = endpoint
        self._peers = peers
        self._kv = kv
        self._receivers = receivers
        self._outgoing: dict[str, _Outgoing] = {}
        self._news: list[Note] = []
        self._batch = Batch()

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._endpoint.fileno(),)

    def obey(self, note: Note) -> None:
        """Do what the leader says."""
        match note:
            case Begin():
                self._begin(note)
            case Hold():
                self._hold(note)
            case Drop():
                self._drop(note)

    def poll(self) -> list[Note]:
        """Take in what has come, and send what is computed and not sent."""
        self._take_all()
        self._peers.call_again()
        for request_id, outgoing in self._outgoing.items():
            if outgoing.due and min(outgoing.due) < outgoing.num_computed:
                for layer in range(len(outgoing.due)):
                    self._send(request_id, outgoing, layer, outgoing.num_computed)
        news, self._news = self._news, []
        return news

    def share(self, batch: Batch) -> None:
        self._batch = batch

    def after_layer(self, layer: int) -> None:
        """Also looks for news, so that a prompt of one chunk need not wait for the step's end."""
        self._take_all()
        is_last = layer == len(self._kv.layers) - 1
        for chunk in self._batch.chunks:
            if outgoing := self._outgoing.get(chunk.request_id):
                end = chunk.start + len(chunk.token_ids)
                self._send(chunk.request_id, outgoing, layer, end)
                if is_last:
                    outgoing.num_computed = end

    def _begin(self, note: Begin) -> None:
        peers = self._receivers[note.decode_rank]
        if not peers:
            self._news.append(Ended(note.request_id))
            return
        self._endpoint.offer(note.request_id, note.num_tokens, peers)
        self._outgoing[note.request_id] = _Outgoing(peers)

    def _hold(self, note: Hold) -> None:
        if outgoing := self._outgoing.get(note.request_id):
            outgoing.page_ids = note.page_ids
            outgoing.num_computed = max(outgoing.num_computed, note.num_computed)

    def _drop(self, note: Drop) -> None:
        outgoing = self._outgoing.get(note.request_id)
        if outgoing is not None and not outgoing.is_dropped:
            outgoing.is_dropped, outgoing.due = True, None
            self._endpoint.withdraw(note.request_id, note.reason)

    def _take_all(self) -> None:
        for event in self._endpoint.poll():
            self._take(event)

    def _take(self, event: KvEvent) -> None:
        self._peers.take(event)
        match event:
            case Accepted(request_id, first_token):
                outgoing = self._outgoing[request_id]
                if not outgoing.is_dropped:
                    outgoing.due = [first_token] * len(self._kv.layers)
            case Delivered(request_id):
                self._end(Ended(request_id))
            case SendFailed(request_id, reason):
                self._end(Ended(request_id, reason))

    def _end(self, ended: Ended) -> None:
        del self._outgoing[ended.request_id]
        self._news.append(ended)

    def _send(self, request_id: str, outgoing: _Outgoing, layer: int, end: int) -> None:
        """Send one layer's tokens up to an end, unless too much waits to be sent."""
        if outgoing.due is None:
            return
        while (first := outgoing.due[layer]) < end:
            stop = min(end, first + _TOKENS_PER_BLOCK)
            parts = self._kv.read(layer, outgoing.page_ids, first, stop)
            if not self._endpoint.send(request_id, layer, first, parts):
                return
            outgoing.due[layer] = stop
            for peer in outgoing.peers:
                agreement = self._peers.sending(peer)
                self.counts.bytes_sent += block_bytes(agreement, layer, stop - first)
