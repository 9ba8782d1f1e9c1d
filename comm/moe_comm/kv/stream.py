"""Frames over one non-blocking socket, in an asyncio loop; too long a silence ends it."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable

from moe_comm.kv.frames import (
    PREFIX,
    Frame,
    FrameError,
    decode_header,
    decode_prefix,
    encode_head,
)
from moe_comm.kv.messages import Goodbye, Message
from moe_comm.kv.number_types import Array

_PARTING_SECONDS = 0.2


class FrameStream:
    def __init__(self, connection: socket.socket, silence_seconds: float) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._silence_seconds = silence_seconds

    async def receive(self, payload_bytes: Callable[[Message], int]) -> Frame:
        """The next frame.

        Args:
            payload_bytes: what a message's payload must measure; asked before it is read.

        Raises:
            FrameError: what came is no such frame.
            OSError: the connection broke, was closed, or was silent for too long.
        """
        header_bytes, num_bytes = decode_prefix(await self._receive_exactly(PREFIX.size))
        header = bytes(await self._receive_exactly(header_bytes))
        message = decode_header(header)
        due = payload_bytes(message)
        if num_bytes != due:
            raise FrameError(
                f"a {type(message).__name__} came with {num_bytes} bytes of payload, not {due}"
            )
        return Frame(message, header, await self._receive_exactly(num_bytes))

    async def send(self, pieces: Iterable[bytes | Array]) -> None:
        """
        Raises:
            OSError: the connection broke.
        """
        loop = asyncio.get_running_loop()
        for piece in pieces:
            view = memoryview(piece if isinstance(piece, bytes) else piece.data)
            await loop.sock_sendall(self._connection, view.cast("B"))

    async def part(self, reason: str) -> None:
        """Say why, if that goes at once; between frames only."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_PARTING_SECONDS):
                await self.send([encode_head(Goodbye(reason))])

    def shut_down(self) -> None:
        """Whoever waits for a frame gets ConnectionResetError."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    async def _receive_exactly(self, num_bytes: int) -> bytearray:
        loop = asyncio.get_running_loop()
        data = bytearray(num_bytes)
        view, filled = memoryview(data), 0
        while filled < num_bytes:
            try:
                async with asyncio.timeout(self._silence_seconds):
                    count = await loop.sock_recv_into(self._connection, view[filled:])
            except TimeoutError:
                count = self._receive_waiting(view[filled:])
            if not count:
                raise ConnectionResetError("it closed the connection")
            filled += count
        return data

    def _receive_waiting(self, view: memoryview) -> int:
        """What has come nevertheless: on a busy host this thread may be what was late."""
        try:
            return self._connection.recv_into(view)
        except BlockingIOError:
            seconds = f"{self._silence_seconds:g} s"
            raise TimeoutError(f"nothing was heard of it for {seconds}") from None
