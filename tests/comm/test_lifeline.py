"""The record of who is still there: real processes, real sockets, stopped and ended."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest
from moe_comm.membership import Member, Membership
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.lifeline import Record
from moe_comm.transport.lifeline_door import Door, introduce
from moe_comm.transport.lifeline_guest import GuestLifeline
from moe_comm.transport.lifeline_host import HostLifeline
from moe_comm.transport.lifeline_return import Returning
from moe_comm.transport.tcp_connect import listen, split_address

# Plan ranks 0 and 1 are one mpirun, 2 and 3 another, 4 a third.
MPIRUNS = (0, 0, 2, 2, 4)
KEY = b"key"
PART = "part"
SILENT_SECONDS = 1.5
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

    def parts(self) -> None:
        """Return when it is about to wait for the others to part as well."""
        self.said.send(PART)
        assert self.sees() == PART

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def _follow(rank: int, address: tuple[str, int], pass_word: bytes | None, end: Connection) -> None:
    connection = socket.create_connection(address)
    if pass_word is None:
        connection.sendall(bytes([rank]))
    else:
        introduce(connection, KEY, rank, pass_word)
    lifeline = GuestLifeline(connection, SILENT_SECONDS)
    epoch = 0
    while not lifeline.ending:
        order = end.recv() if end.poll(0.02) else None
        if order == PART:
            end.send(PART)
            end.send(_part(lifeline, epoch))
        elif order is not None:
            lifeline.accuse(epoch, order)
        with suppress(PeerLostError):
            record = lifeline.wait_beyond(epoch, 0.02)
            epoch = record.epoch
            end.send(record)
    end.send(lifeline.ending)


def _part(lifeline: GuestLifeline, epoch: int) -> str:
    try:
        lifeline.part(epoch, 20.0)
        return "over"
    except PeerLostError as error:
        return str(error)


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
    host = HostLifeline(world(), ends, SILENT_SECONDS, door)
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


def test_the_world_is_over_for_all_alike() -> None:
    """Not before the last has parted, whoever has left by then; and nobody is lost by it."""
    with lines() as (host, guests), ThreadPoolExecutor(1) as pool:
        parting = pool.submit(host.part, 0, 20.0)
        for rank in (1, 2, 3):
            guests[rank].parts()
        time.sleep(0.7)
        assert not parting.done()
        assert not any(guest.said.poll() for guest in guests.values())
        guests[4].parts()
        parting.result(5.0)
        assert [guest.sees() for guest in guests.values()] == ["over"] * 4
        host.close()
        assert host.record == Record() and host.ending == ""


def test_who_has_parted_is_called_back_by_a_loss_and_by_a_return() -> None:
    """What is parted from is one epoch's world: with another record all must part again."""
    with (
        lines(Door(listen("127.0.0.1"), KEY)) as (host, guests),
        ThreadPoolExecutor(1) as pool,
    ):
        parting = pool.submit(host.part, 0, 20.0)
        for rank in (1, 2, 3):
            guests[rank].parts()
        guests[4].end()
        with pytest.raises(PeerLostError, match="as all were to end"):
            parting.result(5.0)
        for rank in (1, 2, 3):
            assert "as all were to end" in str(guests[rank].sees())
            assert guests[rank].sees() == Record(1, FARTHEST)
        returning = Returning([world().members[4]])
        host.expect(returning)
        parting = pool.submit(host.part, 1, 20.0)
        guests[1].parts()
        fourth = Guest(4, split_address(host.address), returning.pass_word)
        with pytest.raises(PeerLostError, match="as all were to end"):
            parting.result(5.0)
        assert "as all were to end" in str(guests[1].sees())
        while (seen := fourth.sees()) != (record := Record(2, frozenset(), ((4, ""),))):
            assert seen == Record(1, FARTHEST)
        assert guests[1].sees() == guests[2].sees() == guests[3].sees() == record
        parting = pool.submit(host.part, 2, 20.0)
        for guest in (guests[1], guests[2], guests[3], fourth):
            guest.parts()
        parting.result(5.0)
        assert [each.sees() for each in (guests[1], guests[2], fourth)] == ["over"] * 3
        fourth.end()
