"""The end that prefills: each layer's keys and values leave as soon as they are computed.

A request is offered when its first chunk is about to be computed. What is computed before the
other end accepts it, and what could not leave at once, follows as soon as it can.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_comm.kv.block import block_bytes
from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import Accepted, Delivered, KvEvent, SendFailed

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.handover import HandoverCounts
from moe_serve.step.kv_peers import KvPeers
from moe_serve.step.rank_kv import RankKv
from moe_serve.types import Batch, Request

# Longer ones gain nothing, and what is copied at once should stay small.
_TOKENS_PER_BLOCK = 1024


@dataclass(slots=True)
class _Outgoing:
    """Attributes:
    due: the next token of each layer; none before it is accepted, and none after it was withdrawn.
    """

    peer: str
    due: list[int]
    is_withdrawn: bool = False


class KvSender:
    """
    Args:
        names: of the other ends, by plan rank.
    """

    def __init__(
        self,
        endpoint: KvEndpoint,
        peers: KvPeers,
        scheduler: Scheduler,
        kv: RankKv,
        names: Mapping[int, str],
    ) -> None:
        self.counts = HandoverCounts()
        self._endpoint = endpoint
        self._peers = peers
        self._scheduler = scheduler
        self._kv = kv
        self._names = names
        self._outgoing: dict[str, _Outgoing] = {}
        self._batch = Batch()

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._endpoint.fileno(),)

    def add(self, request: Request) -> None:
        assert request.decode_rank is not None, "a rank that prefills has no tokens to give"

    def refuse(self, request: Request, reason: str) -> None:
        self._offer(request)
        self._withdraw(request.request_id, reason)

    def poll(self) -> bool:
        """Take in what has come, and send what is computed and not sent."""
        num_before = len(self._outgoing)
        self._take_all()
        has_ended = len(self._outgoing) < num_before
        self._peers.call_again()
        for request_id, outgoing in self._outgoing.items():
            held = self._scheduler.handovers.held(request_id)
            if held is None:
                self._withdraw(request_id, "the rank that computes it has given it up")
            elif outgoing.due and min(outgoing.due) < held.num_computed:
                for layer in range(len(outgoing.due)):
                    self._send(request_id, layer, held.page_ids, held.num_computed)
        return has_ended

    def begin_step(self, batch: Batch) -> None:
        for request in self._scheduler.handovers.take_admitted():
            if request.request_id not in self._outgoing:
                self._offer(request)
        self._batch = batch

    def after_layer(self, layer: int) -> None:
        """Also looks for news, so that a prompt of one chunk need not wait for the step's end."""
        self._take_all()
        for chunk in self._batch.chunks:
            end = chunk.start + len(chunk.token_ids)
            self._send(chunk.request_id, layer, chunk.page_ids, end)

    def _offer(self, request: Request) -> None:
        assert request.decode_rank is not None
        peer = self._names[request.decode_rank]
        self._endpoint.offer(request.request_id, len(request.prompt_ids), [peer])
        self._outgoing[request.request_id] = _Outgoing(peer, [])

    def _withdraw(self, request_id: str, reason: str) -> None:
        outgoing = self._outgoing[request_id]
        if not outgoing.is_withdrawn:
            outgoing.is_withdrawn, outgoing.due = True, []
            self._endpoint.withdraw(request_id, reason)

    def _take_all(self) -> None:
        for event in self._endpoint.poll():
            self._take(event)

    def _take(self, event: KvEvent) -> None:
        self._peers.take(event)
        match event:
            case Accepted(request_id, first_token):
                outgoing = self._outgoing[request_id]
                if not outgoing.is_withdrawn:
                    outgoing.due = [first_token] * len(self._kv.layers)
            case Delivered(request_id) | SendFailed(request_id):
                del self._outgoing[request_id]
                self._scheduler.abort(request_id)

    def _send(self, request_id: str, layer: int, page_ids: tuple[int, ...], end: int) -> None:
        """Send one layer's tokens up to an end, unless too much waits to be sent."""
        outgoing = self._outgoing.get(request_id)
        if outgoing is None or not outgoing.due:
            return
        agreement = self._peers.sending(outgoing.peer)
        while (first := outgoing.due[layer]) < end:
            stop = min(end, first + _TOKENS_PER_BLOCK)
            parts = self._kv.read(layer, page_ids, first, stop)
            if not self._endpoint.send(request_id, layer, first, parts):
                return
            outgoing.due[layer] = stop
            self.counts.bytes_sent += block_bytes(agreement, layer, stop - first)
