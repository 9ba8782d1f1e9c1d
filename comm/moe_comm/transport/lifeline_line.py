"""One end of a line between a rank and plan rank 0: beats, sent and received without blocking."""

import socket
import struct
import time

import msgspec

_LENGTH = struct.Struct("!I")


class Beat(msgspec.Struct, frozen=True):
    """A sign of life, and all that its sender holds to be so.

    Attributes:
        epoch: of the sender's record.
        ranks: plan ranks; from plan rank 0 those that are lost, from another rank those that it
            cannot reach.
        addresses: from plan rank 0, of ranks that have come back.
        is_last: from plan rank 0, the world is over; from another rank, it leaves it.
        is_done: the sender has nothing more to do in this epoch's world.
        cut_off: from another rank, those to which there is no way from here.
    """

    epoch: int
    ranks: tuple[int, ...] = ()
    is_last: bool = False
    addresses: tuple[tuple[int, str], ...] = ()
    is_done: bool = False
    cut_off: tuple[int, ...] = ()


class BeatLine:
    """
    Args:
        connection: after the handshake; the line's own from now on.

    Attributes:
        is_closed: the other end has closed it, or it broke.
        heard: time.monotonic() of the last beat.
        has_left: the other end's last beat has come.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.is_closed = False
        self.has_left = False
        self.heard = time.monotonic()
        self._unsent = b""
        self._received = bytearray()

    def send(self, beat: Beat) -> None:
        """Lost where the last one has not left yet: the next one says it all again."""
        if not self._unsent:
            data = msgspec.msgpack.encode(beat)
            self._unsent = _LENGTH.pack(len(data)) + data
        try:
            self._unsent = self._unsent[self.connection.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.is_closed = True

    def receive(self) -> Beat | None:
        """The newest beat that has come since the last call."""
        try:
            while not self.is_closed:
                data = self.connection.recv(1 << 16)
                self.is_closed = not data
                self._received += data
        except BlockingIOError:
            pass
        except OSError:
            self.is_closed = True
        return self._newest()

    def is_silent(self, seconds: float) -> bool:
        return time.monotonic() - self.heard > seconds

    def close(self) -> None:
        self.is_closed = True
        self.connection.close()

    def _newest(self) -> Beat | None:
        beat = None
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            end = _LENGTH.size + length
            if len(self._received) < end:
                break
            beat = msgspec.msgpack.decode(self._received[_LENGTH.size : end], type=Beat)
            del self._received[:end]
            self.heard = time.monotonic()
            self.has_left |= beat.is_last
        return beat
