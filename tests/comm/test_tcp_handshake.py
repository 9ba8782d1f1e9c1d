"""Who may join: the same key, the same version, and nobody else."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from moe_comm.transport.tcp_handshake import (
    HandshakeError,
    VersionError,
    greet_guest,
    greet_host,
    receive_exactly,
)

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    host, guest = socket.socketpair()
    for end in (host, guest):
        end.settimeout(5)
    with host, guest:
        yield host, guest


def outcomes(host: Callable[[], None], guest: Callable[[], None]) -> list[BaseException | None]:
    with ThreadPoolExecutor() as pool:
        return [each.exception(10) for each in (pool.submit(host), pool.submit(guest))]


def test_ends_that_hold_one_key(ends: Ends) -> None:
    host, guest = ends
    assert outcomes(lambda: greet_guest(host, b"k"), lambda: greet_host(guest, b"k")) == [None] * 2
    guest.sendall(b"more")
    assert receive_exactly(host, 4) == b"more"


def test_another_key_is_refused_at_both_ends(ends: Ends) -> None:
    host, guest = ends
    errors = outcomes(lambda: greet_guest(host, b"k"), lambda: greet_host(guest, b"other"))
    for error in errors:
        assert isinstance(error, HandshakeError) and "another secret" in str(error)


def test_another_version_is_told_at_both_ends(ends: Ends) -> None:
    host, guest = ends
    errors = outcomes(lambda: greet_guest(host, b"k", 1), lambda: greet_host(guest, b"k", 2))
    assert [type(error) for error in errors] == [VersionError, VersionError]
    assert "speaks version 2 of the world protocol, this end version 1" in str(errors[0])
    assert "speaks version 1 of the world protocol, this end version 2" in str(errors[1])


def test_a_stranger_is_told_apart(ends: Ends) -> None:
    host, guest = ends
    guest.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
    with pytest.raises(HandshakeError, match="no moe_serve process"):
        greet_guest(host, b"k")


def test_what_the_host_says_cannot_be_sent_back_to_it(ends: Ends) -> None:
    """A guest without the key repeats the host's own greeting, and what it proves elsewhere."""
    host, guest = ends

    def mirror() -> None:
        greeting = receive_exactly(guest, 44)
        guest.sendall(greeting + bytes(32))
        assert receive_exactly(guest, 1) == b"\0"

    errors = outcomes(lambda: greet_guest(host, b"k"), mirror)
    assert isinstance(errors[0], HandshakeError) and errors[1] is None
