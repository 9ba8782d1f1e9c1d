"""The record of who is still there: real processes, real sockets, stopped and ended."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest
from moe_comm.membership import Member, Membership
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.lifeline import SILENT_SECONDS, Record
from moe_comm.transport.lifeline_door import Door, introduce
from moe_comm.transport.lifeline_guest import GuestLifeline
from moe_comm.transport.lifeline_host import HostLifeline
from moe_comm.transport.lifeline_return import Returning
from moe_comm.transport.tcp_connect import listen, split_address

# Plan ranks 0 and 1 are one mpirun, 2 and 3 another, 4 a third.
MPIRUNS = (0, 0, 2, 2, 4)
KEY = b"key"
FAR, FARTHEST = frozenset({2, 3}), frozenset({4})


def world() -> Membership:
    return Membership(
        0,
        tuple(
            Member(
                plan_rank=rank,
                pool="pool",
                device_kind="cpu",
                host="here",
                process_id=1,
                local_rank=rank,
                version="1",
                digest="d",
                mpirun=mpirun,
            )
            for rank, mpirun in enumerate(MPIRUNS)
        ),
    )


class Guest:
    """Another rank, which says what it sees and accuses whom it is told to."""

    def __init__(self, rank: int, address: tuple[str, int], pass_word: bytes | None = None) -> None:
        context = multiprocessing.get_context("fork")
        self.said, end = context.Pipe()
        self.process = context.Process(target=_follow, args=(rank, address, pass_word, end))
        self.process.start()

    def sees(self) -> object:
        assert self.said.poll(10.0), "it says nothing"
        return self.said.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _follow(rank: int, address: tuple[str, int], pass_word: bytes | None, end: Connection) -> None:
    connection = socket.create_connection(address)
    if pass_word is None:
        connection.sendall(bytes([rank]))
    else:
        introduce(connection, KEY, rank, pass_word)
    lifeline = GuestLifeline(connection)
    epoch = 0
    while not lifeline.ending:
        if end.poll(0.02):
            lifeline.accuse(epoch, end.recv())
        with suppress(PeerLostError):
            record = lifeline.wait_beyond(epoch, 0.02)
            epoch = record.epoch
            end.send(record)
    end.send(lifeline.ending)


@contextmanager
def lines(door: Door | None = None) -> Iterator[tuple[HostLifeline, dict[int, Guest]]]:
    ends: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # All are forked before there is a connection: none keeps an end of another's line.
        address = listener.getsockname()
        guests = {rank: Guest(rank, address) for rank in range(1, len(MPIRUNS))}
        for _ in guests:
            connection, _ = listener.accept()
            ends[connection.recv(1)[0]] = connection
    host = HostLifeline(world(), ends, door)
    try:
        yield host, guests
    finally:
        host.close()
        for guest in guests.values():
            guest.end()


def test_one_end_of_a_line_is_a_whole_mpirun() -> None:
    with lines() as (host, guests):
        guests[3].end()
        record = Record(1, FAR)
        assert host.wait_beyond(0, 5.0) == record
        assert guests[1].sees() == guests[4].sees() == record
        assert "counts this rank's mpirun as lost" in str(guests[2].sees())
        # A second loss; and an accusation of old does no harm.
        guests[1].said.send(FAR)
        guests[4].end()
        assert host.wait_beyond(1, 5.0) == Record(2, FAR | FARTHEST)
        assert guests[1].sees() == Record(2, FAR | FARTHEST)
        assert host.ending == ""


def test_a_stopped_rank_is_missed_in_time() -> None:
    with lines() as (host, guests):
        started = time.monotonic()
        stopped = guests[2].process.pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        assert host.wait_beyond(0, 10.0) == Record(1, FAR)
        assert SILENT_SECONDS - 0.5 < time.monotonic() - started < SILENT_SECONDS + 1.5


def test_who_is_accused_must_go_but_never_the_mpirun_of_plan_rank_0() -> None:
    with lines() as (host, guests):
        guests[1].said.send(FARTHEST)
        assert host.wait_beyond(0, 5.0) == Record(1, FARTHEST)
        assert guests[2].sees() == Record(1, FARTHEST)
        guests[2].said.send(frozenset({1}))
        assert host.wait_beyond(1, 5.0) == Record(2, FAR | FARTHEST)
        assert host.ending == ""


def test_an_mpirun_is_taken_back_once_all_of_it_have_called() -> None:
    with lines(Door(listen("127.0.0.1"), KEY)) as (host, guests):
        returning = Returning([replace(world().members[rank], address=f"{rank}") for rank in FAR])
        guests[2].end()
        assert host.wait_beyond(0, 5.0) == Record(1, FAR)
        host.expect(returning)
        third = Guest(3, split_address(host.address), returning.pass_word)
        # Neither one that knows no pass word, nor half an mpirun.
        stranger = Guest(2, split_address(host.address), bytes(16))
        assert third.sees() == Record(1, FAR)
        assert "closed its line" in str(stranger.sees())
        with pytest.raises(PeerLostError):
            host.wait_beyond(1, 0.5)
        second = Guest(2, split_address(host.address), returning.pass_word)
        record = Record(2, frozenset(), ((2, "2"), (3, "3")))
        assert host.wait_beyond(1, 5.0) == record
        while (seen := second.sees()) != record:
            assert seen == Record(1, FAR)
        assert third.sees() == record
        third.end()
        assert host.wait_beyond(2, 5.0).lost == FAR
        stranger.end()
        second.end()


def test_without_the_mpirun_of_plan_rank_0_there_is_no_world() -> None:
    with lines() as (host, guests):
        guests[1].end()
        with pytest.raises(PeerLostError, match="mpirun of plan rank 0"):
            host.wait_beyond(0, 5.0)


def test_nobody_is_lost_where_all_agree_to_leave() -> None:
    with lines() as (host, guests):
        with pytest.raises(PeerLostError, match="still hears of all"):
            host.wait_beyond(0, 0.5)
        host.close()
        time.sleep(0.5)
        assert not any(guest.said.poll() for guest in guests.values())
