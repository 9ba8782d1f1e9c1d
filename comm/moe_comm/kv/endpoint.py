"""One rank's end of all KV transfers: a thread that talks to its peers, and calls that never wait.

The engine's loop calls; nothing blocks; what happened comes from `poll`. Of two ends that are to
meet, one calls `connect`.

    sender                                      receiver
    offer(request, num_tokens, peers)           Offered -> accept(request, first_token)
    Accepted -> send(request, layer, ...)       Landed, layer by layer, chunk by chunk
    Delivered                                   Completed
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence

import msgspec

from moe_comm.kv.block import Parts, parts_bytes
from moe_comm.kv.budget import Budget
from moe_comm.kv.declared_link import DeclaredLink
from moe_comm.kv.events import (
    Accepted,
    Completed,
    Delivered,
    KvEvent,
    Offered,
    ReceiveFailed,
    SendFailed,
)
from moe_comm.kv.hello import Hello
from moe_comm.kv.hub import Hub
from moe_comm.kv.inbox import Inbox
from moe_comm.kv.limits import MAX_BLOCK_BYTES, KvLimits
from moe_comm.kv.number_types import dtype_of
from moe_comm.kv.outgoing import Outgoing

_CLOSE_SECONDS = 2.0


class KvEndpoint:
    """Listens from the start, on `port`; all methods are for one thread, the engine's.

    Args:
        hello: this rank's declaration; its name must be its own among all peers.
        secret: the same at all ends.
        port: 0 takes a free one.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(
        self,
        hello: Hello,
        secret: bytes,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: KvLimits | None = None,
    ) -> None:
        limits = limits or KvLimits()
        self._listener = socket.create_server((host, port))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._hello = hello
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._on_fault)
        self._inbox = Inbox(self._loop, limits.bytes_in_flight)
        self._budget = Budget(limits.bytes_in_flight)
        self._hub = Hub(hello, secret, limits, self._inbox, self._budget)
        self._fault: BaseException | None = None
        self._outgoing: dict[str, Outgoing] = {}
        self._offers: dict[str, Offered] = {}
        self._work = self._loop.create_task(self._hub.run(self._listener))
        self._thread = threading.Thread(target=self._run, name="kv-endpoint", daemon=True)
        self._thread.start()

    def connect(
        self, address: str, *, wire_type: str = "", declared: DeclaredLink | None = None
    ) -> None:
        """To HOST:PORT; PeerReady or PeerRefused will tell.

        Args:
            wire_type: the only one that is sent there; empty leaves it to the hello.
            declared: over which what is sent there arrives no sooner than it would have.
        """
        sends = (wire_type,) if wire_type else self._hello.sends
        hello = msgspec.structs.replace(self._hello, sends=sends)
        self._do(lambda: self._hub.start(self._hub.call(address, hello, declared)))

    def offer(self, request_id: str, num_tokens: int, peers: Sequence[str]) -> None:
        """KV of tokens [0, num_tokens) for these peers; ends in Delivered or SendFailed.

        Raises:
            ValueError: the same request's last offer has not ended, or there is nothing to offer.
        """
        if request_id in self._outgoing or num_tokens < 1 or not peers:
            raise ValueError(f"request {request_id!r} cannot be offered: {num_tokens=}, {peers=}")
        self._outgoing[request_id] = Outgoing(num_tokens, tuple(peers))
        self._do(lambda: self._hub.sending.offer(request_id, num_tokens, tuple(peers)))

    def send(self, request_id: str, layer: int, first_token: int, parts: Parts) -> bool:
        """Hand over one layer's next tokens of an accepted request.

        Args:
            parts: keys and values, or latent and rotary key; [tokens, heads of this rank, width]
                each, in the cache type of this end (bfloat16 as uint16). They are kept, not
                copied: leave them unchanged. What is before a peer's first token is not sent.

        Returns:
            False if too much waits already: nothing was taken, try again after a later `poll`.

        Raises:
            ValueError: the request is not accepted, these are not the layer's next tokens, or the
                parts have another shape or type.
        """
        if (outgoing := self._outgoing.get(request_id)) is None:
            raise ValueError(f"request {request_id!r} is not offered")
        self._check_parts(layer, parts)
        outgoing.check(layer, first_token, len(parts[0]))
        peers = outgoing.peers
        if not self._budget.take(peers, parts_bytes(parts)):
            return False
        outgoing.note(layer, first_token + len(parts[0]))
        self._do(lambda: self._hub.sending.send(request_id, peers, layer, first_token, parts))
        return True

    def withdraw(self, request_id: str, reason: str) -> None:
        """Send no more of it; SendFailed will follow unless it was delivered."""
        self._do(lambda: self._hub.sending.give_up(request_id, reason))

    def accept(self, request_id: str, first_token: int) -> None:
        """Take an offered request from `first_token` on: num_tokens if all of it is cached here.

        Raises:
            ValueError: it is not offered, or has no such token.
        """
        offer = self._offered(request_id)
        if not 0 <= first_token <= offer.num_tokens:
            raise ValueError(f"{first_token=} is not within the {offer.num_tokens} tokens offered")
        self._do(lambda: self._hub.receiving.accept(offer, first_token))

    def refuse(self, request_id: str, reason: str) -> None:
        """Take none, or no more, of it; ReceiveFailed will follow unless it was completed.

        Raises:
            ValueError: it is not offered.
        """
        offer = self._offered(request_id)
        self._do(lambda: self._hub.receiving.refuse(offer, reason))

    def poll(self) -> list[KvEvent]:
        """What happened since the last call, in order; returns at once.

        Raises:
            RuntimeError: the endpoint's thread has ended by a fault of its own.
        """
        events = self._inbox.drain()
        for event in events:
            self._note(event)
        if self._fault is not None:
            raise RuntimeError("the KV endpoint's thread has ended") from self._fault
        return events

    def fileno(self) -> int:
        """Readable while events wait, for a loop that sleeps on descriptors."""
        return self._inbox.fileno()

    def close(self) -> None:
        """End the thread and all connections; waits at most two seconds."""
        self._do(self._work.cancel)
        self._thread.join(_CLOSE_SECONDS)
        self._listener.close()
        self._inbox.close()

    def _do(self, call: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work)
        except asyncio.CancelledError:
            pass
        except BaseException as fault:
            self._fault = fault
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def _on_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        fault = context.get("exception")
        self._fault = fault if isinstance(fault, BaseException) else RuntimeError(str(context))
        self._work.cancel()

    def _note(self, event: KvEvent) -> None:
        match event:
            case Accepted():
                self._outgoing[event.request_id].first_token = event.first_token
            case Delivered() | SendFailed():
                del self._outgoing[event.request_id]
            case Offered():
                self._offers[event.request_id] = event
            case Completed() | ReceiveFailed():
                del self._offers[event.request_id]

    def _offered(self, request_id: str) -> Offered:
        if request_id not in self._offers:
            raise ValueError(f"request {request_id!r} is not offered")
        return self._offers[request_id]

    def _check_parts(self, layer: int, parts: Parts) -> None:
        own = self._hello.layers[layer]
        heads = own.end_head - own.first_head
        due = [(len(parts[0]), heads, width) for width in own.widths]
        dtype = dtype_of(self._hello.cache_type)
        if [part.shape for part in parts] != due or any(part.dtype != dtype for part in parts):
            given = [(part.shape, str(part.dtype)) for part in parts]
            raise ValueError(f"layer {layer} needs parts of shape {due} in {dtype}, not {given}")
        if parts_bytes(parts) > MAX_BLOCK_BYTES // 2:
            raise ValueError(f"a block may have {MAX_BLOCK_BYTES // 2} bytes: send fewer tokens")
