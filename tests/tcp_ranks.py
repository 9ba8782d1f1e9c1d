"""Runs a function on real processes joined by real sockets; the calling process is rank 0."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations

import torch
from moe_comm.transport.tcp import TcpExchange

Body = Callable[[TcpExchange], None]
# Plan ranks of the members: not their ranks in the exchange.
MEMBERS = (3, 5, 8)


@contextmanager
def ranks(
    size: int,
    others: Body,
    deadline_seconds: float = 20.0,
    should_stop: Callable[[], bool] = lambda: False,
    others_end: bool = True,
) -> Iterator[TcpExchange]:
    """This process's exchange; ranks 1 .. size - 1 run `others`, and must end well if they end."""
    members, pairs = MEMBERS[:size], _pairs(MEMBERS[:size])
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_child, args=(member, pairs, others)) for member in members[1:]
    ]
    for child in children:
        child.start()
    own = _keep(members[0], pairs)
    try:
        yield TcpExchange(members, own, deadline_seconds, should_stop)
        for child in children if others_end else ():
            child.join(20)
            assert child.exitcode == 0
    finally:
        for child in children:
            child.kill()
            child.join()
        for connection in own.values():
            connection.close()


def _child(
    member: int, pairs: dict[tuple[int, int], tuple[socket.socket, socket.socket]], body: Body
) -> None:
    torch.set_num_threads(1)
    members = sorted({each for pair in pairs for each in pair})
    with torch.inference_mode():
        body(TcpExchange(members, _keep(member, pairs), 20.0, lambda: False))


def _pairs(
    members: tuple[int, ...],
) -> dict[tuple[int, int], tuple[socket.socket, socket.socket]]:
    pairs = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for pair in combinations(members, 2):
            near = socket.create_connection(listener.getsockname())
            pairs[pair] = (near, listener.accept()[0])
    return pairs


def _keep(
    member: int, pairs: dict[tuple[int, int], tuple[socket.socket, socket.socket]]
) -> dict[int, socket.socket]:
    """A member's ends; all others are closed here, so that only their owners hold them."""
    own = {}
    for pair, ends in pairs.items():
        for index, end in enumerate(ends):
            if pair[index] == member:
                own[pair[1 - index]] = end
            else:
                end.close()
    return own


def stop_itself() -> None:
    """Be silent, and keep all connections."""
    os.kill(os.getpid(), signal.SIGSTOP)
