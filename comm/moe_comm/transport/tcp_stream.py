"""One TCP connection as numbered frames, sent and received without ever blocking."""

import socket
import struct
from collections import deque
from enum import IntEnum
from itertools import islice

import numpy as np
import numpy.typing as npt

# Number of the exchange, its kind, bytes that follow.
_HEADER = struct.Struct("!QBQ")
_PARTS_AT_ONCE = 64
# So that one busy connection does not keep the others waiting.
_BYTES_AT_ONCE = 8 << 20
_BUFFER_BYTES = 4 << 20

Bytes = npt.NDArray[np.uint8]


class FrameError(RuntimeError):
    """The other end sent what cannot come now: the two do not make the same calls."""


class Kind(IntEnum):
    """What an exchange is, so that both ends know that they mean the same one."""

    DATA = 1
    MAXIMUM = 2
    ARRIVAL = 3
    COUNTED_ROWS = 4
    ROWS = 5
    GATHERED_ROWS = 6
    GOODBYE = 7


class FrameStream:
    """Frames to and from one peer; the n-th frame of either end belongs to exchange n.

    Args:
        connection: this stream's own from now on.
        name: of the peer, for errors.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self.connection = connection
        self.name = name
        self.is_closed = False
        self._outgoing: deque[tuple[int, memoryview]] = deque()
        self._arrived: dict[int, tuple[int, Bytes]] = {}
        self._num_arrived = 0
        self._header = bytearray(_HEADER.size)
        self._kind = 0
        self._payload: Bytes | None = None
        self._space = memoryview(self._header)

    @property
    def has_unsent(self) -> bool:
        return bool(self._outgoing)

    @property
    def said_goodbye(self) -> bool:
        """All that it had to say has come."""
        return any(kind == Kind.GOODBYE for kind, _ in self._arrived.values())

    def is_through(self, number: int) -> bool:
        """Frame `number` has come, and ours has left its buffers."""
        is_sent = not self._outgoing or self._outgoing[0][0] > number
        return is_sent and number in self._arrived

    def post(self, number: int, kind: Kind, parts: list[memoryview]) -> None:
        """Send what can be sent at once; `parts` must stay as they are until it is through."""
        num_bytes = sum(part.nbytes for part in parts)
        header = memoryview(_HEADER.pack(number, kind, num_bytes))
        self._outgoing.extend((number, part) for part in (header, *parts) if part.nbytes)
        self.send()

    def send(self) -> None:
        try:
            while self._outgoing and not self.is_closed:
                parts = [part for _, part in islice(self._outgoing, _PARTS_AT_ONCE)]
                self._drop(self.connection.sendmsg(parts))
        except BlockingIOError:
            return
        except OSError:
            self.is_closed = True

    def receive(self) -> None:
        """Take in what has come.

        Raises:
            FrameError: a frame out of turn.
        """
        taken = 0
        try:
            while taken < _BYTES_AT_ONCE and not self.is_closed:
                num_bytes = self.connection.recv_into(self._space)
                self.is_closed = num_bytes == 0
                taken += num_bytes
                self._advance(num_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.is_closed = True

    def take(self, number: int, kind: Kind) -> Bytes:
        """What came in the frame.

        Raises:
            FrameError: it is of another kind.
        """
        arrived, payload = self._arrived.pop(number)
        if arrived != kind:
            raise FrameError(
                f"{self.name} sent a frame of kind {arrived} as number {number}, here it is "
                f"{kind.value} ({kind.name.lower()}): the two ends make different calls"
            )
        return payload

    def _drop(self, num_bytes: int) -> None:
        while self._outgoing and num_bytes >= self._outgoing[0][1].nbytes:
            num_bytes -= self._outgoing.popleft()[1].nbytes
        if num_bytes:
            number, part = self._outgoing[0]
            self._outgoing[0] = (number, part[num_bytes:])

    def _advance(self, num_bytes: int) -> None:
        self._space = self._space[num_bytes:]
        if self._space.nbytes:
            return
        if self._payload is None:
            self._open_frame()
        if self._payload is not None and not self._space.nbytes:
            self._arrived[self._num_arrived] = (self._kind, self._payload)
            self._num_arrived += 1
            self._payload, self._space = None, memoryview(self._header)

    def _open_frame(self) -> None:
        number, self._kind, num_bytes = _HEADER.unpack(self._header)
        if number != self._num_arrived or self._kind not in Kind.__members__.values():
            raise FrameError(
                f"{self.name} sent a frame of kind {self._kind} with number {number}, "
                f"{self._num_arrived} was due: the connection cannot be trusted any more"
            )
        self._payload = np.empty(num_bytes, np.uint8)
        self._space = self._payload.data
