"""Opens the lines between all ranks and plan rank 0."""

import socket
from contextlib import ExitStack

from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.lifeline import Lifeline
from moe_comm.transport.lifeline_door import NO_PASS_WORD, Door, hear_out, introduce
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

_OPENING_SECONDS = 30.0


def open_lifeline(joined: Joined, everybody: Exchange) -> Lifeline:
    """Called by all ranks together, over an exchange of all of them.

    Raises:
        PeerLostError: not all lines could be opened.
    """
    patience = Patience(_OPENING_SECONDS, lambda: False)
    try:
        if joined.plan_rank > 0:
            address = everybody.allgather_bytes(b"")[0].decode()
            connection = _call(address, joined, patience, NO_PASS_WORD)
            return GuestLifeline(connection, joined.silent_seconds)
        address, _ = split_address(joined.member.address)
        with ExitStack() as on_error:
            listener = on_error.enter_context(listen(address))
            own = join_address(address, listener.getsockname()[1])
            everybody.allgather_bytes(own.encode())
            connections = _take_calls(listener, joined, patience)
            on_error.pop_all()
        door = Door(listener, joined.key)
        return HostLifeline(joined.membership, connections, joined.silent_seconds, door)
    except (GivenUpError, OSError) as error:
        raise PeerLostError(f"no line between all ranks and plan rank 0: {error}") from error


def open_lifeline_again(joined: Joined) -> Lifeline:
    """Called by each rank of an mpirun that comes back, once it is ready to compute.

    Raises:
        PeerLostError: plan rank 0 does not answer.
    """
    assert joined.comeback is not None
    comeback, patience = joined.comeback, Patience(_OPENING_SECONDS, lambda: False)
    try:
        connection = _call(comeback.lifeline, joined, patience, comeback.pass_word)
        return GuestLifeline(connection, joined.silent_seconds)
    except (GivenUpError, OSError) as error:
        raise PeerLostError(f"plan rank 0 does not answer any more: {error}") from error


def _call(address: str, joined: Joined, patience: Patience, pass_word: bytes) -> socket.socket:
    connection = connect(*split_address(address), patience)
    introduce(connection, joined.key, joined.plan_rank, pass_word)
    return connection


def _take_calls(
    listener: socket.socket, joined: Joined, patience: Patience
) -> dict[int, socket.socket]:
    connections: dict[int, socket.socket] = {}
    while len(connections) < len(joined.membership.members) - 1:
        patience.readable(listener)
        connection, _ = listener.accept()
        # Who is taken for a stranger will be missed.
        if caller := hear_out(connection, joined.key):
            connections[caller[0]] = connection
    return connections
