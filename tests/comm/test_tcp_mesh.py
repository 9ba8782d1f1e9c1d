"""Connections of a group: found where they are awaited, and given up where nobody will call."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from moe_comm.membership import Member, Membership
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.tcp_mesh import TcpMesh

KEY = b"of this world alone"


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield opened
    for each in opened:
        each.close()


def mesh(listeners: list[socket.socket], rank: int) -> TcpMesh:
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in listeners]
    members = tuple(
        Member(
            plan_rank=number,
            pool="host",
            device_kind="cpu",
            host="here",
            host_identity="",
            process_id=number,
            local_rank=0,
            version="1",
            digest="",
            mpirun=number,
            address=address,
        )
        for number, address in enumerate(addresses)
    )
    return TcpMesh(Joined(rank, Membership(0, members), KEY, listeners[rank]))


def never() -> bool:
    return False


def test_a_rank_that_ended_before_it_called_is_not_waited_for(
    listeners: list[socket.socket],
) -> None:
    waiting = mesh(listeners, 0)
    listeners[1].close()
    start = time.monotonic()
    with pytest.raises(PeerLostError, match=r"plan rank 1 at 127\.0\.0\.1:\d+ has ended; see its"):
        waiting.connect([0, 1], 60.0, never)
    assert time.monotonic() - start < 5.0


def test_a_rank_that_is_late_is_waited_for(listeners: list[socket.socket]) -> None:
    """It is looked for meanwhile, and takes that for a stranger's call."""
    first, late = mesh(listeners, 0), mesh(listeners, 1)
    found: dict[int, socket.socket] = {}
    thread = threading.Thread(target=lambda: found.update(first.connect([0, 1], 30.0, never)))
    thread.start()
    time.sleep(1.5)
    connection = late.connect([0, 1], 30.0, never)[0]
    thread.join(30.0)
    connection.sendall(b"well met")
    assert found[1].recv(8) == b"well met"
    for each in (connection, found[1]):
        each.close()
    # What looked for it waits at its end.
    looked, _ = listeners[1].accept()
    with looked:
        assert looked.recv(1) == b""


def test_the_deadline_is_that_of_the_caller(listeners: list[socket.socket]) -> None:
    with pytest.raises(PeerLostError, match=r"plan rank 1 did not call: no answer within 0\.3 s"):
        mesh(listeners, 0).connect([0, 1], 0.3, never)
