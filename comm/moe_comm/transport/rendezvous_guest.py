"""The other mpiruns' end of a rendezvous: one visit, which ends with the answer."""

import socket

import msgspec

from moe_comm.transport.rendezvous_book import Answer, Party
from moe_comm.transport.rendezvous_point import MeetingPoint, RendezvousError
from moe_comm.transport.tcp_connect import GivenUpError, Patience, connect, split_address
from moe_comm.transport.tcp_handshake import (
    HandshakeError,
    greet_host,
    receive_message,
    send_message,
)

_HANDSHAKE_SECONDS = 5.0
_RETRY_SECONDS = 0.2
# The host's clock may have started that much later than a guest's.
_GRACE_SECONDS = 10.0


def visit(point: MeetingPoint, party: Party) -> Answer:
    """Find the host, present the party, wait for the answer.

    Raises:
        RendezvousError: nobody is there, or holds another secret or version, or ended.
    """
    where = f"world.address {point.address}"
    try:
        connection = _reach(point)
    except GivenUpError as error:
        raise RendezvousError(
            f"{where}: nobody answered within {point.wait_seconds:g} s; start the mpirun of the "
            "first pool there, or raise world.wait"
        ) from error
    except HandshakeError as error:
        raise RendezvousError(f"{where}: cannot join the process there: {error}") from error
    with connection:
        connection.settimeout(point.wait_seconds + _GRACE_SECONDS)
        try:
            send_message(connection, msgspec.msgpack.encode(party))
            return msgspec.msgpack.decode(receive_message(connection), type=Answer)
        except OSError as error:
            raise RendezvousError(
                f"{where}: the process there ended before the world was complete ({error}); see "
                "its log"
            ) from error


def _reach(point: MeetingPoint) -> socket.socket:
    """A connection to a host that holds the secret; it may come later than its guests."""
    patience = Patience(point.wait_seconds, _never)
    while True:
        try:
            connection = connect(*split_address(point.address), patience)
        except GivenUpError:
            raise
        except OSError:
            patience.pause(_RETRY_SECONDS)
            continue
        try:
            connection.settimeout(_HANDSHAKE_SECONDS)
            greet_host(connection, point.secret, point.version)
            return connection
        except HandshakeError:
            connection.close()
            raise
        except OSError:
            connection.close()
            patience.pause(_RETRY_SECONDS)


def _never() -> bool:
    return False
