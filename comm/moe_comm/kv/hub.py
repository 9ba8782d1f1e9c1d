"""All connections of one endpoint, in its thread: calls made and taken, messages to their side."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

from moe_comm.kv.block import Parts
from moe_comm.kv.budget import Budget
from moe_comm.kv.declared_link import DeclaredLink
from moe_comm.kv.events import PeerLost, PeerReady, PeerRefused
from moe_comm.kv.frames import FrameError
from moe_comm.kv.greeting import greet
from moe_comm.kv.handshake import HandshakeError, Role
from moe_comm.kv.hello import Hello
from moe_comm.kv.inbox import Inbox
from moe_comm.kv.limits import KvLimits
from moe_comm.kv.link import Link
from moe_comm.kv.messages import (
    Accept,
    Block,
    Complete,
    Message,
    Offer,
    Ping,
    Refuse,
    Withdraw,
)
from moe_comm.kv.negotiate import CannotConvertError
from moe_comm.kv.receiving import Receiving
from moe_comm.kv.sending import Sending
from moe_comm.kv.stream import FrameStream

_TICK_SECONDS = 0.25
_RETRY_SECONDS = 0.1


class Hub:
    def __init__(
        self, hello: Hello, secret: bytes, limits: KvLimits, inbox: Inbox, budget: Budget
    ) -> None:
        self._hello = hello
        self._secret = secret
        self._limits = limits
        self._inbox = inbox
        self._links: dict[str, Link] = {}
        self.sending = Sending(self._links, budget, inbox.put)
        self.receiving = Receiving(hello.cells, inbox.put)
        self._group = asyncio.TaskGroup()

    async def run(self, listener: socket.socket) -> None:
        """Until cancelled."""
        async with self._group:
            self.start(self._watch())
            loop = asyncio.get_running_loop()
            while True:
                connection, (host, port, *_) = await loop.sock_accept(listener)
                self.start(self._take(connection, f"{host}:{port}"))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        self._group.create_task(work)

    async def call(self, address: str, hello: Hello, declared: DeclaredLink | None) -> None:
        """Connect to HOST:PORT, repeatedly for a while."""
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                connection = await _connect(address)
        except OSError as error:
            seconds = f"{self._limits.connect_seconds:g} s"
            reason = str(error) or f"it could not be reached within {seconds}"
            self._inbox.put(PeerRefused(address, reason))
            return
        with connection:
            await self._converse(connection, address, "connecting", hello, declared)

    async def _take(self, connection: socket.socket, address: str) -> None:
        with connection:
            await self._converse(connection, address, "listening", self._hello, None)

    async def _converse(
        self,
        connection: socket.socket,
        address: str,
        role: Role,
        hello: Hello,
        declared: DeclaredLink | None,
    ) -> None:
        stream = FrameStream(connection, self._limits.silence_seconds)
        seconds = self._limits.connect_seconds
        try:
            peer = await greet(stream, hello, self._secret, role, seconds)
        except (HandshakeError, CannotConvertError, FrameError, OSError) as error:
            reason = str(error) or f"its greeting took longer than {seconds:g} s"
            self._inbox.put(PeerRefused(address, reason))
            return
        link = Link(stream, peer, self._limits, declared)
        self._join(link)
        reason = await link.run(
            lambda message, parts: self._hear(link, message, parts), self._inbox.has_room
        )
        self._leave(link, reason)

    def _join(self, link: Link) -> None:
        if known := self._links.get(link.name):
            known.cut()
            self._leave(known, "it connected anew")
        self._links[link.name] = link
        self._inbox.put(PeerReady(link.peer.hello, link.peer.sending, link.peer.receiving))
        self.sending.on_ready(link)

    def _leave(self, link: Link, reason: str) -> None:
        if self._links.get(link.name) is link:
            del self._links[link.name]
            self.sending.on_lost(link, reason)
            self.receiving.on_lost(link, reason)
            self._inbox.put(PeerLost(link.name, reason))

    def _hear(self, link: Link, message: Message, parts: Parts | None) -> None:
        if self._links.get(link.name) is not link:
            return
        match message:
            case Ping():
                pass
            case Accept():
                self.sending.on_accept(link, message)
            case Refuse():
                self.sending.on_refuse(link, message)
            case Complete():
                self.sending.on_complete(link, message)
            case Offer():
                self.receiving.on_offer(link, message)
            case Block() if parts is not None:
                self.receiving.on_block(link, message, parts)
            case Withdraw():
                self.receiving.on_withdraw(link, message)
            case _:
                raise FrameError(f"a {type(message).__name__} came after the greeting")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.sending.on_time(self._limits.idle_seconds)
            self.receiving.on_time(self._limits.idle_seconds)


async def _connect(address: str) -> socket.socket:
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    while True:
        found = await loop.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, target = found[0]
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, target)
            return connection
        except ConnectionRefusedError:
            connection.close()
            await asyncio.sleep(_RETRY_SECONDS)
        except BaseException:
            connection.close()
            raise
