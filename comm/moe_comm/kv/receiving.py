"""The receiver's side of all transfers of one endpoint, in the endpoint's thread."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from moe_comm.kv.block import Parts
from moe_comm.kv.events import Completed, KvEvent, Landed, Offered, OfferFailed, ReceiveFailed
from moe_comm.kv.frames import FrameError
from moe_comm.kv.link import Link
from moe_comm.kv.messages import Accept, Block, Complete, Offer, Refuse, Withdraw

Cells = frozenset[tuple[int, int]]


@dataclass(slots=True)
class _Leg:
    """One request's way from one peer.

    Attributes:
        due: the next token of each layer that is not yet complete; None before it is accepted.
    """

    link: Link
    transfer: int
    cells: Cells
    due: dict[int, int] | None = None

    @property
    def is_complete(self) -> bool:
        return self.due is not None and not self.due


@dataclass(slots=True)
class _Received:
    """Attributes:
    number: of the event that offered it; 0 while some heads are not offered yet.
    """

    request_id: str
    num_tokens: int
    last_progress: float
    legs: list[_Leg] = field(default_factory=list)
    number: int = 0


class Receiving:
    """Every Offered ends in one Completed or ReceiveFailed.

    Args:
        cells: the (layer, head) pairs that this rank needs.
    """

    def __init__(self, cells: Cells, emit: Callable[[KvEvent], None]) -> None:
        self._cells = cells
        self._emit = emit
        self._requests: dict[str, _Received] = {}
        self._by_transfer: dict[tuple[Link, int], tuple[_Received, _Leg]] = {}
        self._num_offered = 0

    def accept(self, offer: Offered, first_token: int) -> None:
        if (request := self._offered(offer)) is None:
            return
        assert all(leg.due is None for leg in request.legs), "accepted twice"
        request.last_progress = time.monotonic()
        for leg in request.legs:
            layers = {layer for layer, _ in leg.cells} if first_token < request.num_tokens else ()
            leg.due = dict.fromkeys(layers, first_token)
            leg.link.say(Accept(leg.transfer, first_token))
            if leg.is_complete:
                leg.link.say(Complete(leg.transfer))
        self._finish(request)

    def refuse(self, offer: Offered, reason: str) -> None:
        if request := self._offered(offer):
            self._fail(request, reason)

    def on_offer(self, link: Link, message: Offer) -> None:
        agreement = link.peer.receiving
        if agreement is None or (link, message.transfer) in self._by_transfer:
            raise FrameError(f"transfer {message.transfer} cannot be offered")
        request = self._requests.get(message.request_id)
        if request is None:
            now = time.monotonic()
            request = _Received(message.request_id, message.num_tokens, now)
            self._requests[message.request_id] = request
        leg = _Leg(link, message.transfer, agreement.cells)
        if fault := self._misfit(request, leg, message):
            link.say(Refuse(message.transfer, fault))
            return
        request.legs.append(leg)
        self._by_transfer[link, message.transfer] = request, leg
        if frozenset().union(*(each.cells for each in request.legs)) == self._cells:
            self._num_offered += 1
            request.number = self._num_offered
            peers = tuple(sorted(each.link.name for each in request.legs))
            self._emit(Offered(request.request_id, request.num_tokens, peers, request.number))

    def on_block(self, link: Link, message: Block, parts: Parts) -> None:
        if (found := self._by_transfer.get((link, message.transfer))) is None:
            return
        request, leg = found
        end_token = message.first_token + message.num_tokens
        due = leg.due.get(message.layer) if leg.due is not None else None
        if due != message.first_token or end_token > request.num_tokens:
            raise FrameError(
                f"layer {message.layer} of transfer {message.transfer} sent tokens"
                f" {message.first_token} to before {end_token}; {due} was due"
            )
        self._land(request, link, message, parts)
        self._advance(request, leg, message.layer, end_token)

    def on_withdraw(self, link: Link, message: Withdraw) -> None:
        if found := self._by_transfer.get((link, message.transfer)):
            self._fail(found[0], f"{link.name} withdrew it: {message.reason}")

    def on_lost(self, link: Link, reason: str) -> None:
        for request in [*self._requests.values()]:
            if any(leg.link is link for leg in request.legs):
                self._fail(request, f"{link.name} was lost: {reason}")

    def on_time(self, idle_seconds: float) -> None:
        overdue = time.monotonic() - idle_seconds
        for request in [*self._requests.values()]:
            if request.last_progress < overdue:
                self._fail(request, f"nothing moved for {idle_seconds:g} s")

    def _offered(self, offer: Offered) -> _Received | None:
        """None if it has ended, even if the same request was offered again."""
        request = self._requests.get(offer.request_id)
        return request if request and request.number == offer.number else None

    def _misfit(self, request: _Received, leg: _Leg, message: Offer) -> str | None:
        if message.num_tokens != request.num_tokens:
            return f"another rank offers {request.num_tokens} tokens, this one {message.num_tokens}"
        known = next((each for each in request.legs if each.cells & leg.cells), None)
        return f"{known.link.name} offers some of the same heads" if known else None

    def _land(self, request: _Received, link: Link, message: Block, parts: Parts) -> None:
        agreement = link.peer.receiving
        assert agreement is not None
        blocks = agreement.layers[message.layer]
        declared = message.first_head, message.end_head, message.wire_type
        if declared != (blocks.first_head, blocks.end_head, agreement.wire_type):
            raise FrameError(f"a block declares {declared}, which was not agreed on")
        place = message.layer, message.first_token, blocks.receiver_head
        self._emit(Landed(request.request_id, *place, parts))

    def _advance(self, request: _Received, leg: _Leg, layer: int, end_token: int) -> None:
        assert leg.due is not None
        request.last_progress = time.monotonic()
        leg.due[layer] = end_token
        if end_token == request.num_tokens:
            del leg.due[layer]
        if leg.is_complete:
            leg.link.say(Complete(leg.transfer))
            self._finish(request)

    def _finish(self, request: _Received) -> None:
        if all(leg.is_complete for leg in request.legs):
            self._forget(request)
            self._emit(Completed(request.request_id))

    def _fail(self, request: _Received, reason: str) -> None:
        self._forget(request)
        for leg in request.legs:
            if not leg.is_complete:
                leg.link.say(Refuse(leg.transfer, reason))
        failure = ReceiveFailed if request.number else OfferFailed
        self._emit(failure(request.request_id, reason))

    def _forget(self, request: _Received) -> None:
        del self._requests[request.request_id]
        for leg in request.legs:
            del self._by_transfer[leg.link, leg.transfer]
