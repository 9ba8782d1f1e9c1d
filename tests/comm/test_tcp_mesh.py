"""Connections of a group: found where they are awaited, and given up where nobody will call."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from moe_comm.membership import Member, Membership
from moe_comm.transport import tcp_mesh
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.tcp_connect import keep_alive
from moe_comm.transport.tcp_mesh import CutOffError, TcpMesh

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


def test_a_rank_that_came_back_is_looked_for_where_it_is_now(
    listeners: list[socket.socket],
) -> None:
    """It is busy for longer than the first look waits, and where it was nobody listens."""
    first, busy = mesh(listeners, 0), mesh(listeners, 1)
    listeners[1].close()
    found: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1", 0)) as now:
        first.start_epoch(2, {1: f"127.0.0.1:{now.getsockname()[1]}"})
        busy.start_epoch(2, {})
        thread = threading.Thread(target=lambda: found.update(first.connect([0, 1], 30.0, never)))
        thread.start()
        time.sleep(1.5)
        with busy.connect([0, 1], 30.0, never)[0] as connection:
            thread.join(30.0)
            connection.sendall(b"well met")
            assert found[1].recv(8) == b"well met"
            found[1].close()


def test_no_way_to_a_rank_is_told_from_its_end(
    listeners: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is full answers no more than a host beyond a cut link."""
    monkeypatch.setattr(tcp_mesh, "_REACH_SECONDS", 0.5)
    calling = mesh(listeners, 1)
    listeners[0].listen(0)
    with ExitStack() as stack:
        for _ in range(4):
            stranger = stack.enter_context(socket.socket())
            stranger.setblocking(False)
            with suppress(BlockingIOError):
                stranger.connect(listeners[0].getsockname())
        start = time.monotonic()
        with pytest.raises(CutOffError, match=r"plan rank 0 at .* cannot be reached") as caught:
            calling.connect([0, 1], 60.0, never)
    assert caught.value.rank == 0
    assert time.monotonic() - start < 5.0
    listeners[0].close()
    with pytest.raises(PeerLostError) as refused:
        calling.connect([0, 1], 60.0, never)
    assert not isinstance(refused.value, CutOffError)


def test_a_connection_that_nothing_is_sent_on_breaks_when_its_link_does() -> None:
    """The kernels ask; how long it takes stands with the socket."""
    with socket.socket() as connection:
        keep_alive(connection, 30.0)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, pause, probes = (connection.getsockopt(socket.IPPROTO_TCP, each) for each in options)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert 30 <= idle + pause * probes <= 36


def test_the_deadline_is_that_of_the_caller(listeners: list[socket.socket]) -> None:
    with pytest.raises(PeerLostError, match=r"plan rank 1 did not call: no answer within 0\.3 s"):
        mesh(listeners, 0).connect([0, 1], 0.3, never)
