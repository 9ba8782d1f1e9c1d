"""Worlds of three mpiruns in one process: real sockets, a thread for each rank."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TypeVar

from moe_comm.launch import Launch
from moe_comm.membership import Member, Membership
from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.lifeline import Record
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.rendezvous_book import Answer, Party
from moe_comm.transport.rendezvous_host import Host
from moe_comm.transport.rendezvous_point import MeetingPoint
from moe_comm.transport.tcp_connect import listen
from moe_comm.transport.world import World
from relay import Relay, relay

Result = TypeVar("Result")

KEY = b"of this world alone"
SILENT_SECONDS = 1.0
# Longer than any test waits for a loss.
STEP_SECONDS = 20.0
LAST = 2
# Beyond the first look for one that does not call.
BUSY_SECONDS = 1.5


def never() -> bool:
    return False


class Worlds:
    """Three ranks, an mpirun each; ranks 1 and 2 meet over a link that can be cut."""

    def __init__(self, stack: ExitStack) -> None:
        self._listeners = [listen("127.0.0.1") for _ in range(3)]
        self.link: Relay = stack.enter_context(relay(self._listeners[1].getsockname()))
        ports = [each.getsockname()[1] for each in self._listeners]
        # Who is of a higher rank calls.
        ports[1] = self.link.port
        self.members = tuple(self.member(rank, port) for rank, port in enumerate(ports))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.host = Host(MeetingPoint(address, KEY, 5.0), ("p0", "p1", "p2"))
        self.worlds = [World(Launch(), None, self._joined(rank)) for rank in range(3)]
        self._pool = stack.enter_context(ThreadPoolExecutor(4))

    @staticmethod
    def member(rank: int, port: int) -> Member:
        return Member(
            plan_rank=rank,
            pool=f"p{rank}",
            device_kind="cpu",
            host="here",
            process_id=rank,
            local_rank=0,
            version="1",
            digest="",
            mpirun=rank,
            address=f"127.0.0.1:{port}",
        )

    def _joined(self, rank: int) -> Joined:
        world = Membership(0, self.members)
        return Joined(
            rank,
            world,
            KEY,
            self._listeners[rank],
            self.host if rank == 0 else None,
            silent_seconds=SILENT_SECONDS,
        )

    def submit(self, work: Callable[[World], Result], world: World) -> "Future[Result]":
        return self._pool.submit(work, world)

    def start_again(self) -> World:
        """The last rank, as its mpirun is let in once more."""
        assert self.host.readmit is not None
        listener = listen("127.0.0.1")
        own = self.member(LAST, listener.getsockname()[1])
        answer = self.host.readmit(Party(("p2",), "here", (own,)), Answer(refusal="late"))
        assert answer.comeback is not None, answer.refusal
        joined = replace(self._joined(LAST), listener=listener, comeback=answer.comeback)
        return World(Launch(), None, replace(joined, membership=Membership(0, answer.members)))


def serve(world: World) -> Record:
    """Exchange until somebody is lost or back -> who is there, when those have met again."""
    everybody = world.open_exchange(world.ranks, STEP_SECONDS, never)
    if world.record == Record():
        world.follow_peers(everybody, bytes)
    else:
        world.watch_links()
    others = [rank for rank in world.ranks if rank > 0]
    pair = world.open_exchange(others if world.plan_rank else [0], STEP_SECONDS, never)
    with suppress(PeerLostError):
        while True:
            everybody.barrier()
            pair.barrier()
            time.sleep(0.01)
    return world.leave_lost_behind()


def meet(world: World) -> Record:
    everybody = world.open_exchange(world.ranks, STEP_SECONDS, never)
    world.watch_links()
    everybody.barrier()
    return world.record


def come_back_busy(world: World) -> Record:
    world.follow_peers(LocalExchange(), bytes)
    world.leave_lost_behind()
    time.sleep(BUSY_SECONDS)
    return meet(world)


def close(*worlds: World) -> None:
    threads = [threading.Thread(target=world.close) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
