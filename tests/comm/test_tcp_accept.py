"""Calls are taken on after those that could not be."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moe_comm.transport.lifeline_door import Door, introduce
from moe_comm.transport.rendezvous_host import Host
from moe_comm.transport.rendezvous_point import MeetingPoint
from moe_comm.transport.tcp_connect import listen, split_address
from moe_comm.transport.tcp_handshake import WORLD_PROTOCOL, greet_host

KEY = b"of this world alone"


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None can be opened: what accepts a connection fails."""
    lowest = os.dup(0)
    os.close(lowest)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def call_in_vain(address: str) -> None:
    """A thread that waits has its descriptor: it is the next one for which there is none."""
    with socket.socket() as caller, no_descriptors():
        caller.connect(split_address(address))
        time.sleep(0.2)


def test_a_door_stays_open_where_a_call_cannot_be_taken(caplog: pytest.LogCaptureFixture) -> None:
    callers: list[tuple[int, bytes, socket.socket]] = []
    door = Door(listen("127.0.0.1"), KEY)
    door.open(lambda *caller: callers.append(caller))
    call_in_vain(door.address)
    with socket.create_connection(split_address(door.address)) as caller:
        introduce(caller, KEY, 3, bytes(16))
        deadline = time.monotonic() + 5.0
        while not callers:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    ((rank, pass_word, connection),) = callers
    assert (rank, pass_word) == (3, bytes(16))
    connection.close()
    door.close()
    assert "door: a call could not be taken" in caplog.text
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(split_address(door.address))


def test_a_rendezvous_stays_open_where_a_call_cannot_be_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    host = Host(MeetingPoint(address, KEY, 4.0), ("gpu", "host"))
    call_in_vain(address)
    with socket.create_connection(split_address(address)) as caller:
        caller.settimeout(5.0)
        greet_host(caller, KEY, WORLD_PROTOCOL)
    host.close()
