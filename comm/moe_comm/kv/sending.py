"""The sender's side of all transfers of one endpoint, in the endpoint's thread."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moe_comm.kv.block import Parts, block_bytes, encode_block, parts_bytes
from moe_comm.kv.budget import Budget
from moe_comm.kv.events import Accepted, Delivered, KvEvent, SendFailed
from moe_comm.kv.frames import FrameError, encode_head
from moe_comm.kv.link import Link, Parcel
from moe_comm.kv.messages import Accept, Block, Complete, Offer, Refuse, Withdraw
from moe_comm.kv.number_types import Array
from moe_comm.kv.untold import Ended, Untold


@dataclass(slots=True)
class _Leg:
    """One request's way to one peer."""

    link: Link
    transfer: int
    first_token: int | None = None
    is_delivered: bool = False


@dataclass(slots=True)
class _Sent:
    request_id: str
    num_tokens: int
    legs: list[_Leg]
    last_progress: float
    is_live: bool = True


class Sending:
    """Every offer ends in one Delivered or SendFailed; its receivers hear of a failure too."""

    def __init__(
        self, links: Mapping[str, Link], budget: Budget, emit: Callable[[KvEvent], None]
    ) -> None:
        self._links = links
        self._budget = budget
        self._emit = emit
        self._requests: dict[str, _Sent] = {}
        self._by_transfer: dict[tuple[Link, int], tuple[_Sent, _Leg]] = {}
        self._untold = Untold()

    def offer(self, request_id: str, num_tokens: int, peers: Sequence[str]) -> None:
        links = [self._links.get(name) for name in peers]
        for name, link in zip(peers, links, strict=True):
            if link is None or link.peer.sending is None:
                verb = "connected" if link is None else "a receiver"
                reason = f"{name} is not {verb}"
                self._tell_failure(peers, Ended(request_id, num_tokens, reason))
                self._emit(SendFailed(request_id, reason))
                return
        legs = [_Leg(link, link.next_transfer()) for link in links if link is not None]
        request = _Sent(request_id, num_tokens, legs, time.monotonic())
        self._requests[request_id] = request
        for leg in legs:
            self._by_transfer[leg.link, leg.transfer] = request, leg
            leg.link.say(Offer(leg.transfer, request_id, num_tokens))

    def send(
        self, request_id: str, peers: Sequence[str], layer: int, first_token: int, parts: Parts
    ) -> None:
        """To each peer the tokens and heads that it lacks.

        Args:
            peers: whose budgets these parts were taken from.
        """
        request = self._requests.get(request_id)
        if request is None:
            for name in peers:
                self._budget.give_back(name, parts_bytes(parts))
            return
        for leg in request.legs:
            self._put_block(request, leg, layer, first_token, parts)

    def give_up(self, request_id: str, reason: str) -> None:
        if request := self._requests.get(request_id):
            self._fail(request, reason)

    def on_accept(self, link: Link, message: Accept) -> None:
        if (found := self._find(link, message.transfer)) is None:
            return
        request, leg = found
        if leg.first_token is not None or message.first_token > request.num_tokens:
            raise FrameError(f"transfer {message.transfer} cannot be accepted like this")
        leg.first_token = message.first_token
        request.last_progress = time.monotonic()
        first_tokens = [each.first_token for each in request.legs if each.first_token is not None]
        if len(first_tokens) == len(request.legs):
            self._emit(Accepted(request.request_id, min(first_tokens)))

    def on_refuse(self, link: Link, message: Refuse) -> None:
        if found := self._find(link, message.transfer):
            self._fail(found[0], f"{link.name} refused: {message.reason}")

    def on_complete(self, link: Link, message: Complete) -> None:
        if (found := self._find(link, message.transfer)) is None:
            return
        request, leg = found
        leg.is_delivered = True
        if all(each.is_delivered for each in request.legs):
            self._forget(request)
            self._emit(Delivered(request.request_id))

    def on_ready(self, link: Link) -> None:
        """Tell it what ended while it was not there."""
        if link.peer.sending is not None:
            for ended in self._untold.take(link.name):
                _say_failure(link, ended)

    def on_lost(self, link: Link, reason: str) -> None:
        for request in [*self._requests.values()]:
            if any(leg.link is link for leg in request.legs):
                self._fail(request, f"{link.name} was lost: {reason}")

    def on_time(self, idle_seconds: float) -> None:
        overdue = time.monotonic() - idle_seconds
        for request in [*self._requests.values()]:
            if request.last_progress < overdue:
                self._fail(request, f"nothing moved for {idle_seconds:g} s")
        self._untold.on_time(idle_seconds)

    def _find(self, link: Link, transfer: int) -> tuple[_Sent, _Leg] | None:
        return self._by_transfer.get((link, transfer))

    def _fail(self, request: _Sent, reason: str) -> None:
        self._forget(request)
        for leg in request.legs:
            if leg.is_delivered:
                continue
            if self._links.get(leg.link.name) is leg.link:
                leg.link.say(Withdraw(leg.transfer, reason))
            else:
                ended = Ended(request.request_id, request.num_tokens, reason)
                self._tell_failure([leg.link.name], ended)
        self._emit(SendFailed(request.request_id, reason))

    def _tell_failure(self, peers: Sequence[str], ended: Ended) -> None:
        """Of an offer that these peers have not heard of, now or when they are back."""
        for name in peers:
            link = self._links.get(name)
            if link is None:
                self._untold.note(name, ended)
            elif link.peer.sending is not None:
                _say_failure(link, ended)

    def _forget(self, request: _Sent) -> None:
        request.is_live = False
        del self._requests[request.request_id]
        for leg in request.legs:
            del self._by_transfer[leg.link, leg.transfer]

    def _put_block(
        self, request: _Sent, leg: _Leg, layer: int, first_token: int, parts: Parts
    ) -> None:
        def pack() -> Sequence[bytes | Array]:
            return _pack_block(leg, layer, first_token, parts) if request.is_live else ()

        def done() -> None:
            request.last_progress = time.monotonic()
            self._budget.give_back(leg.link.name, parts_bytes(parts))

        leg.link.put(Parcel(pack, done, parts_bytes(parts)))


def _say_failure(link: Link, ended: Ended) -> None:
    transfer = link.next_transfer()
    link.say(Offer(transfer, ended.request_id, ended.num_tokens))
    link.say(Withdraw(transfer, ended.reason))


def _pack_block(leg: _Leg, layer: int, first_token: int, parts: Parts) -> Sequence[bytes | Array]:
    """The frame's pieces; none if the peer has all of it, or needs no head of this layer."""
    agreement = leg.link.peer.sending
    assert agreement is not None and leg.first_token is not None
    blocks = agreement.layers[layer]
    num_known = max(0, leg.first_token - first_token)
    num_tokens = len(parts[0]) - num_known
    if num_tokens <= 0 or blocks.num_heads == 0:
        return ()
    block = Block(
        transfer=leg.transfer,
        layer=layer,
        first_token=first_token + num_known,
        num_tokens=num_tokens,
        first_head=blocks.first_head,
        end_head=blocks.end_head,
        wire_type=agreement.wire_type,
    )
    sections = encode_block(agreement, layer, (parts[0][num_known:], parts[1][num_known:]))
    return [encode_head(block, block_bytes(agreement, layer, num_tokens)), *sections]
