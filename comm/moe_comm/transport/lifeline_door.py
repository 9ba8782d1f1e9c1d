"""Where ranks that come back call plan rank 0 for their lines, as long as it serves."""

import socket
import struct
from collections.abc import Callable

from moe_comm.transport.lifeline_return import PASS_WORD_BYTES
from moe_comm.transport.tcp_accept import Reception
from moe_comm.transport.tcp_connect import join_address
from moe_comm.transport.tcp_handshake import greet_guest, greet_host, receive_exactly

_HANDSHAKE_SECONDS = 5.0
_CALL = struct.Struct(f"!I{PASS_WORD_BYTES}s")
NO_PASS_WORD = bytes(PASS_WORD_BYTES)


def introduce(connection: socket.socket, key: bytes, plan_rank: int, pass_word: bytes) -> None:
    """Say who calls; OSError where nobody hears it."""
    connection.settimeout(_HANDSHAKE_SECONDS)
    greet_host(connection, key)
    connection.sendall(_CALL.pack(plan_rank, pass_word))


def hear_out(connection: socket.socket, key: bytes) -> tuple[int, bytes] | None:
    """Plan rank and pass word of a caller; None, and it is hung up, where it is a stranger."""
    connection.settimeout(_HANDSHAKE_SECONDS)
    try:
        greet_guest(connection, key)
        rank, pass_word = _CALL.unpack(receive_exactly(connection, _CALL.size))
        return rank, pass_word
    except OSError:
        connection.close()
        return None


class Door:
    """
    Args:
        listener: its own from now on.
        key: that ranks of this world alone hold.
    """

    def __init__(self, listener: socket.socket, key: bytes) -> None:
        self.address = join_address(*listener.getsockname()[:2])
        self._listener = listener
        self._key = key
        self._reception: Reception | None = None

    def open(self, take: Callable[[int, bytes, socket.socket], None]) -> None:
        """From now on `take` gets each caller, in a thread of its own."""

        def let_in(connection: socket.socket, _who: str) -> None:
            caller = hear_out(connection, self._key)
            if caller is not None:
                take(*caller, connection)

        self._reception = Reception(self._listener, let_in, "door")

    def close(self) -> None:
        if self._reception is not None:
            self._reception.close()
        else:
            self._listener.close()
