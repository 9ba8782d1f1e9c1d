"""A link that plan rank 0 has no end of is cut: who is lost by it, and how soon."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from moe_comm.membership import Member, Membership
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.lifeline import Record
from moe_comm.transport.lifeline_cuts import choose_lost
from moe_comm.transport.lifeline_door import Door, introduce
from moe_comm.transport.lifeline_guest import GuestLifeline
from moe_comm.transport.lifeline_host import HostLifeline
from moe_comm.transport.lifeline_return import Returning
from moe_comm.transport.tcp_connect import listen, split_address
from relay import Relay, relay

KEY = b"key"
SILENT_SECONDS = 1.0
# Plan ranks 1 and 2 are one mpirun, 3 another, 4 a third.
MPIRUNS = (0, 1, 1, 3, 4)


def members() -> tuple[Member, ...]:
    return tuple(
        Member(
            plan_rank=rank,
            pool="pool",
            device_kind="cpu",
            host="here",
            process_id=1,
            local_rank=0,
            version="1",
            digest="d",
            mpirun=mpirun,
        )
        for rank, mpirun in enumerate(MPIRUNS)
    )


def pair(address: tuple[str, int], listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    near = socket.create_connection(address)
    return near, listener.accept()[0]


@contextmanager
def lines(door: Door | None = None) -> Iterator[tuple[HostLifeline, dict[int, GuestLifeline]]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends = {rank: pair(listener.getsockname(), listener) for rank in range(1, len(MPIRUNS))}
    host = HostLifeline(
        Membership(0, members()),
        {rank: own for rank, (own, _) in ends.items()},
        SILENT_SECONDS,
        door,
    )
    guests = {rank: GuestLifeline(end, SILENT_SECONDS) for rank, (_, end) in ends.items()}
    try:
        yield host, guests
    finally:
        for guest in guests.values():
            guest.close()
        host.close()


@contextmanager
def wired(guests: dict[int, GuestLifeline], *pairs: tuple[int, int]) -> Iterator[list[Relay]]:
    """Wires between some, each of which can be cut."""
    with ExitStack() as stack:
        wires: dict[int, dict[int, socket.socket]] = {rank: {} for rank in guests}
        relays = []
        for one, other in pairs:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            relays.append(stack.enter_context(relay(listener.getsockname())))
            ends = pair(("127.0.0.1", relays[-1].port), listener)
            wires[one][other], wires[other][one] = ends
        for rank, guest in guests.items():
            guest.watch(0, wires[rank])
        yield relays


@pytest.mark.slow
def test_a_silent_wire_loses_the_smaller_end_in_time() -> None:
    with lines() as (host, guests), wired(guests, (1, 3), (2, 3), (1, 4)) as relays:
        with pytest.raises(PeerLostError, match="still hears of all"):
            host.wait_beyond(0, 1.5 * SILENT_SECONDS)
        started = time.monotonic()
        for each in relays[:2]:
            each.cut()
        record = Record(1, frozenset({3}))
        assert host.wait_beyond(0, 5.0) == record
        seconds = time.monotonic() - started
        assert 0.7 * SILENT_SECONDS < seconds < SILENT_SECONDS + 1.5
        assert guests[1].wait_beyond(0, 5.0) == guests[4].wait_beyond(0, 5.0) == record
        with pytest.raises(PeerLostError, match="counts this rank's mpirun as lost"):
            guests[3].wait_beyond(0, 5.0)
        # The wires of that epoch's world say nothing of the next one.
        with pytest.raises(PeerLostError, match="still hears of all"):
            host.wait_beyond(1, 1.5 * SILENT_SECONDS)


@pytest.mark.slow
def test_a_closed_wire_is_no_cut() -> None:
    with lines() as (host, guests), wired(guests, (1, 3)):
        time.sleep(0.5)
        guests[1].watch(0, {})
        with pytest.raises(PeerLostError, match="still hears of all"):
            host.wait_beyond(0, 2 * SILENT_SECONDS)


def test_one_report_is_enough_and_the_newest_goes() -> None:
    with lines(Door(listen("127.0.0.1"), KEY)) as (host, guests):
        # Ranks 1 and 2 are lost, and there again.
        host.accuse(0, frozenset({1}))
        assert host.wait_beyond(0, 5.0).lost == {1, 2}
        returning = Returning(members()[1:3])
        host.expect(returning)
        for rank in (1, 2):
            caller = socket.create_connection(split_address(host.address))
            introduce(caller, KEY, rank, returning.pass_word)
            guests[rank].close()
            guests[rank] = GuestLifeline(caller, SILENT_SECONDS)
        assert host.wait_beyond(1, 5.0).lost == frozenset()
        guests[4].wait_beyond(1, 5.0)
        # It was there before, and is smaller, and of a higher rank.
        guests[4].report_cut(2, frozenset({2}))
        assert host.wait_beyond(2, 5.0).lost == {1, 2}
        assert guests[4].wait_beyond(2, 5.0).lost == {1, 2}


def test_who_is_cut_off_from_plan_rank_0_goes() -> None:
    with lines() as (host, _):
        host.report_cut(0, frozenset({3}))
        assert host.wait_beyond(0, 5.0).lost == {3}


def test_as_few_go_as_can_be() -> None:
    def weakness(mpirun: int) -> tuple[float, ...]:
        return (mpirun,)

    def lost(*pairs: tuple[int, int]) -> set[int]:
        return choose_lost({frozenset(pair) for pair in pairs}, 0, weakness)

    assert lost((1, 3)) == {3}
    assert lost((1, 3), (1, 4)) == {1}
    assert lost((0, 1), (1, 3)) == {1}
    assert lost((0, 1), (0, 3), (0, 4)) == {1, 3, 4}
    assert lost((1, 3), (1, 4), (5, 6)) == {1, 6}
