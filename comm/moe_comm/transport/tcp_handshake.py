"""Two ends of a TCP connection prove to each other that they hold the same key, without showing it.

Each sends magic, protocol version and a nonce, and then HMAC-SHA256 over both greetings with a
role (RFC 2104; challenge and response, so that nothing can be replayed or reflected). It tells who
the ends are; it does not encrypt. Greeting and proof stay the same in all versions of the protocol.
"""

import hashlib
import hmac
import secrets
import socket
import struct

WORLD_PROTOCOL = 1

_MAGIC = b"moeworld"
_GREETING = struct.Struct("!8sI32s")
_LENGTH = struct.Struct("!I")
_PROOF_BYTES = hashlib.sha256().digest_size
_REFUSED, _ACCEPTED = b"\0", b"\1"
_OTHER_SECRET = "it holds another secret; give every mpirun the same world.secret file"


class HandshakeError(ConnectionError):
    """The other end is no process of this kind, or does not hold the same key."""


class VersionError(HandshakeError):
    """The other end holds the key and speaks another version of the protocol."""


def greet_guest(connection: socket.socket, key: bytes, version: int = WORLD_PROTOCOL) -> None:
    """The side that was called; within the connection's timeout.

    Raises:
        HandshakeError: see there.
        OSError: the connection broke, or was silent.
    """
    own, theirs = _greet(connection, version)
    proof = receive_exactly(connection, _PROOF_BYTES)
    if not hmac.compare_digest(proof, _prove(key, b"guest", own + theirs)):
        connection.sendall(_REFUSED)
        raise HandshakeError(_OTHER_SECRET)
    connection.sendall(_ACCEPTED + _prove(key, b"host", own + theirs))
    _compare(version, theirs)


def greet_host(connection: socket.socket, key: bytes, version: int = WORLD_PROTOCOL) -> None:
    """The side that called; within the connection's timeout.

    Raises:
        HandshakeError: see there.
        OSError: the connection broke, or was silent.
    """
    own, theirs = _greet(connection, version)
    connection.sendall(_prove(key, b"guest", theirs + own))
    if receive_exactly(connection, 1) != _ACCEPTED:
        raise HandshakeError(_OTHER_SECRET)
    proof = receive_exactly(connection, _PROOF_BYTES)
    if not hmac.compare_digest(proof, _prove(key, b"host", theirs + own)):
        raise HandshakeError(_OTHER_SECRET)
    _compare(version, theirs)


def send_message(connection: socket.socket, data: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive_message(connection: socket.socket) -> bytes:
    """
    Raises:
        OSError: the connection was closed, broke, or was silent.
    """
    (length,) = _LENGTH.unpack(receive_exactly(connection, _LENGTH.size))
    return receive_exactly(connection, length)


def receive_exactly(connection: socket.socket, num_bytes: int) -> bytes:
    """
    Raises:
        OSError: the connection was closed, broke, or was silent.
    """
    data = bytearray()
    while len(data) < num_bytes:
        part = connection.recv(min(num_bytes - len(data), 1 << 20))
        if not part:
            raise ConnectionResetError("the other end closed the connection")
        data += part
    return bytes(data)


def _greet(connection: socket.socket, version: int) -> tuple[bytes, bytes]:
    own = _GREETING.pack(_MAGIC, version, secrets.token_bytes(32))
    connection.sendall(own)
    theirs = receive_exactly(connection, _GREETING.size)
    if not theirs.startswith(_MAGIC):
        raise HandshakeError("it is no moe_serve process")
    return own, theirs


def _prove(key: bytes, role: bytes, greetings: bytes) -> bytes:
    return hmac.digest(key, role + greetings, "sha256")


def _compare(version: int, theirs: bytes) -> None:
    other = _GREETING.unpack(theirs)[1]
    if other != version:
        raise VersionError(
            f"it speaks version {other} of the world protocol, this end version {version}; "
            "install the same moe-serve on every host"
        )
