"""The end that decodes: keys and values land in a waiting sequence's pages.

Whatever keeps them from coming, this rank then computes the prompt by itself.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moe_comm.kv.endpoint import KvEndpoint
from moe_comm.kv.events import Completed, KvEvent, Landed, Offered, PeerLost, ReceiveFailed

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.handover import HandoverCounts
from moe_serve.step.kv_peers import KvPeers
from moe_serve.step.rank_kv import RankKv
from moe_serve.types import Batch, Request


@dataclass(slots=True)
class _Incoming:
    """Attributes:
    deadline: by which it must have been offered.
    """

    peer: str
    deadline: float
    is_offered: bool = False


class KvReceiver:
    """
    Args:
        names: of the other ends, by plan rank.
        offer_seconds: after which a prompt that nobody has begun to compute is computed here; and
            after which an offer of a prompt that nobody asked for is refused.
    """

    def __init__(
        self,
        endpoint: KvEndpoint,
        peers: KvPeers,
        scheduler: Scheduler,
        kv: RankKv,
        names: Mapping[int, str],
        offer_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = HandoverCounts()
        self._endpoint = endpoint
        self._peers = peers
        self._scheduler = scheduler
        self._kv = kv
        self._names = names
        self._offer_seconds = offer_seconds
        self._now = now
        self._incoming: dict[str, _Incoming] = {}
        # Offers whose request is still on its way from the front end, by their deadline.
        self._early: dict[str, float] = {}

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._endpoint.fileno(),)

    def add(self, request: Request) -> None:
        if request.prefill_rank is None:
            return
        request_id, peer = request.request_id, self._names[request.prefill_rank]
        self._incoming[request_id] = _Incoming(peer, self._now() + self._offer_seconds)
        if self._early.pop(request_id, None) is not None:
            self._offer(request_id)
        elif not self._peers.is_ready(peer):
            self._fail(request_id)

    def refuse(self, request: Request, reason: str) -> None:
        raise AssertionError("a rank that decodes computes no prompt for others")

    def poll(self) -> bool:
        """Take in what has come, and look after what has not."""
        num_before = len(self._incoming)
        for event in self._endpoint.poll():
            self._take(event)
        now = self._now()
        for request_id, incoming in tuple(self._incoming.items()):
            if not self._scheduler.handovers.is_expected(request_id):
                self._forget(request_id, "it was ended or set back where it is decoded")
            elif not incoming.is_offered and now >= incoming.deadline:
                self._fail(request_id)
        for request_id, deadline in tuple(self._early.items()):
            if now >= deadline:
                del self._early[request_id]
                self._endpoint.refuse(request_id, "nobody asked for it where it is decoded")
        return len(self._incoming) < num_before

    def begin_step(self, batch: Batch) -> None:
        """What was found in the prefix cache at admission need not come."""
        for request in self._scheduler.handovers.take_admitted():
            held = self._scheduler.handovers.held(request.request_id)
            assert held is not None
            self._endpoint.accept(request.request_id, held.num_computed)

    def after_layer(self, layer: int) -> None: ...

    def _take(self, event: KvEvent) -> None:
        self._peers.take(event)
        match event:
            case Offered(request_id):
                if request_id in self._incoming:
                    self._offer(request_id)
                else:
                    self._early[request_id] = self._now() + self._offer_seconds
            case Landed():
                self._land(event)
            case Completed(request_id):
                self._complete(request_id)
            case ReceiveFailed(request_id):
                self._early.pop(request_id, None)
                self._fail(request_id)
            case PeerLost(name):
                for request_id, incoming in tuple(self._incoming.items()):
                    if incoming.peer == name:
                        self._fail(request_id)

    def _offer(self, request_id: str) -> None:
        if self._scheduler.handovers.is_expected(request_id):
            self._incoming[request_id].is_offered = True
            self._scheduler.handovers.offer(request_id)

    def _land(self, event: Landed) -> None:
        held = self._scheduler.handovers.held(event.request_id)
        # The pages of a sequence that was set back meanwhile are others' by now.
        if held is not None and event.request_id in self._incoming:
            self._kv.write(
                event.layer, held.page_ids, event.first_token, event.first_head, event.parts
            )

    def _complete(self, request_id: str) -> None:
        known = self._incoming.pop(request_id, None)
        if known is not None and self._scheduler.handovers.held(request_id) is not None:
            self._scheduler.handovers.land(request_id)
            self.counts.num_handovers += 1

    def _fail(self, request_id: str) -> None:
        """Compute a prompt here, if it is still waited for."""
        if self._incoming.pop(request_id, None) is None:
            return
        if self._scheduler.handovers.is_expected(request_id):
            self._scheduler.handovers.compute_here(request_id)
            self.counts.num_failures += 1

    def _forget(self, request_id: str, reason: str) -> None:
        if self._incoming.pop(request_id).is_offered:
            self._endpoint.refuse(request_id, reason)
