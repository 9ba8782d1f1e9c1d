"""Where ranks that come back call plan rank 0 for their lines, as long as it serves."""

import socket
import struct
import threading
from collections.abc import Callable

from moe_comm.transport.lifeline_return import PASS_WORD_BYTES
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

    def open(self, take: Callable[[int, bytes, socket.socket], None]) -> None:
        """From now on `take` gets each caller, in a thread of its own."""
        threading.Thread(target=self._attend, args=(take,), name="door", daemon=True).start()

    def close(self) -> None:
        # A thread that waits in accept would go on accepting after a mere close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _attend(self, take: Callable[[int, bytes, socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._let_in, args=(connection, take), daemon=True).start()

    def _let_in(
        self, connection: socket.socket, take: Callable[[int, bytes, socket.socket], None]
    ) -> None:
        caller = hear_out(connection, self._key)
        if caller is not None:
            take(*caller, connection)
