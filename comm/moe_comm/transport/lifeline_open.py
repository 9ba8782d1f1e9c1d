"""Opens the lines between all ranks and plan rank 0."""

import socket
import struct

from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.lifeline import Lifeline
from moe_comm.transport.lifeline_guest import GuestLifeline
from moe_comm.transport.lifeline_host import HostLifeline
from moe_comm.transport.tcp_connect import (
    GivenUpError,
    Patience,
    connect,
    join_address,
    listen,
    split_address,
)
from moe_comm.transport.tcp_handshake import greet_guest, greet_host, receive_exactly

_OPENING_SECONDS = 30.0
_HANDSHAKE_SECONDS = 5.0
_PLAN_RANK = struct.Struct("!I")


def open_lifeline(joined: Joined, everybody: Exchange) -> Lifeline:
    """Called by all ranks together, over an exchange of all of them.

    Raises:
        PeerLostError: not all lines could be opened.
    """
    patience = Patience(_OPENING_SECONDS, lambda: False)
    try:
        if joined.plan_rank > 0:
            address = everybody.allgather_bytes(b"")[0].decode()
            return GuestLifeline(_call(address, joined, patience))
        address, _ = split_address(joined.member.address)
        with listen(address) as listener:
            own = join_address(address, listener.getsockname()[1])
            everybody.allgather_bytes(own.encode())
            return HostLifeline(joined.membership, _take_calls(listener, joined, patience))
    except (GivenUpError, OSError) as error:
        raise PeerLostError(f"no line between all ranks and plan rank 0: {error}") from error


def _call(address: str, joined: Joined, patience: Patience) -> socket.socket:
    connection = connect(*split_address(address), patience)
    connection.settimeout(_HANDSHAKE_SECONDS)
    greet_host(connection, joined.key)
    connection.sendall(_PLAN_RANK.pack(joined.plan_rank))
    return connection


def _take_calls(
    listener: socket.socket, joined: Joined, patience: Patience
) -> dict[int, socket.socket]:
    connections: dict[int, socket.socket] = {}
    while len(connections) < len(joined.membership.members) - 1:
        patience.readable(listener)
        connection, _ = listener.accept()
        connection.settimeout(_HANDSHAKE_SECONDS)
        try:
            greet_guest(connection, joined.key)
            (rank,) = _PLAN_RANK.unpack(receive_exactly(connection, _PLAN_RANK.size))
        except OSError:
            # A stranger: who is missed will be missed.
            connection.close()
            continue
        connections[rank] = connection
    return connections
