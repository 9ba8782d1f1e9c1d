"""ZeroMQ lines between the front end and the ranks; every message carries the bring-up's secret."""

import hmac
import logging
from collections.abc import Sequence
from math import ceil
from typing import Any

import msgspec
import zmq

from moe_serve.messages import Command, Report

logger = logging.getLogger(__name__)

_LINGER_MILLISECONDS = 1000


class RankLink:
    """A rank's end: bound before the front end is told the address.

    Whoever first shows the secret is the front end; other peers are not heard and get nothing.
    """

    def __init__(self, host: str, secret: bytes) -> None:
        self._secret = secret
        self._front_end: bytes | None = None
        self._decoder = msgspec.msgpack.Decoder(Command)
        self._encoder = msgspec.msgpack.Encoder()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        # Before binding: the listener copies it, and by it ends the lines whose peer has left.
        # Set only on closing, a report to a front end that leaves meanwhile is kept for ever.
        self._socket.linger = _LINGER_MILLISECONDS
        self.port = self._socket.bind_to_random_port(f"tcp://{host}")

    def receive(self) -> Sequence[Command]:
        commands: list[Command] = []
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return commands
            if len(frames) == 3 and hmac.compare_digest(frames[1], self._secret):
                self._front_end = frames[0]
                commands.append(self._decoder.decode(frames[2]))
            else:
                logger.warning("dropped a message without the secret on port %d", self.port)

    def wait(self, seconds: float, descriptors: Sequence[int] = ()) -> None:
        """Sleep until a message comes, or something can be read from one of the descriptors."""
        poller = zmq.Poller()
        for source in (self._socket, *descriptors):
            poller.register(source, zmq.POLLIN)
        # Rounded up: rounded down, a short pause would be none, again and again.
        poller.poll(ceil(seconds * 1000))

    def send(self, report: Report) -> bool:
        """Whether the front end has called: nobody else gets anything."""
        if self._front_end is None:
            return False
        frames = [self._front_end, self._secret, self._encoder.encode(report)]
        self._socket.send_multipart(frames)
        return True

    def close(self) -> None:
        """Wait up to a second for the last reports to leave."""
        self._socket.close()
        self._context.term()


class FrontEndLink:
    """The front end's end of one rank's line, for asyncio.

    Args:
        endpoint: of ZeroMQ; the rank may not be there yet, or not any more.
    """

    def __init__(self, context: Any, endpoint: str, secret: bytes) -> None:
        self._secret = secret
        self._decoder = msgspec.msgpack.Decoder(Report)
        self._encoder = msgspec.msgpack.Encoder()
        self._socket = context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.linger = _LINGER_MILLISECONDS
        self._socket.connect(endpoint)

    async def send(self, command: Command) -> None:
        await self._socket.send_multipart([self._secret, self._encoder.encode(command)])

    async def receive(self) -> Report:
        while True:
            frames = await self._socket.recv_multipart()
            if len(frames) == 2 and hmac.compare_digest(frames[0], self._secret):
                report: Report = self._decoder.decode(frames[1])
                return report

    def close(self) -> None:
        self._socket.close()
