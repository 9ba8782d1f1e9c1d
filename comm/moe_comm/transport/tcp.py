"""Exchange over TCP: a full mesh of plain sockets between the ranks of several mpiruns.

One frame goes to every other rank in each exchange; nothing is forwarded. Legend: `exchange.py`.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn

import numpy as np
import torch

from moe_comm.transport.exchange import Ints, PeerLostError
from moe_comm.transport.tcp_rows import (
    PendingCountedRows,
    PendingRows,
    int_memory,
    join_rows,
    row_memory,
    split_rows,
)
from moe_comm.transport.tcp_stream import Bytes, FrameError, FrameStream, Kind

# How long the control flag may go unseen.
_TURN_SECONDS = 0.05


class TcpExchange:
    """Implements Exchange on host tensors; what is under way moves during every call.

    Args:
        members: plan ranks of the group, ascending; their order is the exchange's.
        connections: to all other members, by plan rank; the exchange's own from now on.
        deadline_seconds: the longest that any call waits for the other ranks.
        should_stop: the control flag; true ends a wait at once.

    Attributes:
        is_lost: it cannot be used again.
        lost_ranks: plan ranks that closed their connection, or did not answer in time.
    """

    def __init__(
        self,
        members: Sequence[int],
        connections: Mapping[int, socket.socket],
        deadline_seconds: float,
        should_stop: Callable[[], bool],
    ) -> None:
        (own,) = set(members) - set(connections)
        self.rank = members.index(own)
        self.size = len(members)
        self.is_lost = False
        self.lost_ranks: frozenset[int] = frozenset()
        self._members = tuple(members)
        self._deadline_seconds = deadline_seconds
        self._should_stop = should_stop
        self._number = 0
        self._selector = selectors.DefaultSelector()
        self._streams = {
            members.index(each): FrameStream(connection, f"plan rank {each}")
            for each, connection in connections.items()
        }
        for rank, stream in self._streams.items():
            self._selector.register(stream.connection, selectors.EVENT_READ, rank)

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        frames = self._run(Kind.DATA, "data", [memoryview(data)])
        return [data if frame is None else frame.tobytes() for frame in frames]

    def max_reduce(self, values: Ints) -> Ints:
        own = np.ascontiguousarray(values, np.int64)
        frames = self._run(Kind.MAXIMUM, "values", [int_memory(own)])
        theirs = [frame.view(np.int64).reshape(own.shape) for frame in frames if frame is not None]
        largest: Ints = np.maximum.reduce([own, *theirs])
        return largest

    def barrier(self) -> None:
        self._run(Kind.ARRIVAL, "arrival", [])

    def start_all_to_all(
        self,
        rows_RD: torch.Tensor,
        send_counts: Sequence[int],
        slot_counts_G: Ints,
        slots_per_rank: Sequence[int],
    ) -> PendingCountedRows:
        counts = np.split(np.ascontiguousarray(slot_counts_G), np.cumsum(slots_per_rank)[:-1])
        parts = split_rows(rows_RD, send_counts)
        number = self._begin(
            Kind.COUNTED_ROWS,
            lambda rank: [int_memory(counts[rank]), row_memory(parts[rank])],
        )
        return PendingCountedRows(self, number, rows_RD, send_counts, counts)

    def start_rows(
        self, rows_RD: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> PendingRows:
        parts = split_rows(rows_RD, send_counts)
        number = self._begin(Kind.ROWS, lambda rank: [row_memory(parts[rank])])
        return PendingRows(self, number, rows_RD, send_counts, recv_counts)

    def allgather_rows(self, rows_RD: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        frames = self._run(Kind.GATHERED_ROWS, "gathered rows", [row_memory(rows_RD)])
        return join_rows(rows_RD, frames, counts)

    def check_peers(self) -> None:
        """For times in which nothing is exchanged; takes microseconds.

        Raises:
            PeerLostError: a peer has closed its connection.
        """
        self._move(0.0)
        self._check([], 0.0, "nothing")

    def abandon(self) -> None:
        """Use it no more, whatever is under way; nobody is waited for."""
        self.is_lost = True
        self._disconnect()

    def close(self) -> None:
        """Meets the other ranks, so that none leaves while another still receives."""
        try:
            if not self.is_lost:
                self._run(Kind.GOODBYE, "goodbye", [])
        except PeerLostError:
            pass
        self._disconnect()

    def _disconnect(self) -> None:
        self._selector.close()
        for stream in self._streams.values():
            stream.connection.close()

    def poll(self, number: int) -> bool:
        self._move(0.0)
        return not self._missing(number)

    def wait(self, number: int, kind: Kind, what: str) -> list[Bytes | None]:
        """What each rank sent in exchange `number`, in rank order; None is this rank's own.

        Raises:
            PeerLostError: a peer closed its connection or is silent, or control said stop.
            FrameError: a peer is in another exchange.
        """
        self._move(0.0)
        started = time.monotonic()
        while missing := self._missing(number):
            self._check(missing, time.monotonic() - started, what)
            self._move(min(_TURN_SECONDS, self._deadline_seconds))
        try:
            taken = {rank: each.take(number, kind) for rank, each in self._streams.items()}
        except FrameError:
            self.is_lost = True
            raise
        return [taken.get(rank) for rank in range(self.size)]

    def _run(self, kind: Kind, what: str, parts: list[memoryview]) -> list[Bytes | None]:
        return self.wait(self._begin(kind, lambda _rank: parts), kind, what)

    def _begin(self, kind: Kind, parts: Callable[[int], list[memoryview]]) -> int:
        if self.is_lost:
            raise PeerLostError("a rank of this exchange was lost before; open another one")
        number = self._number
        self._number += 1
        for rank, stream in self._streams.items():
            stream.post(number, kind, parts(rank))
        self._move(0.0)
        return number

    def _move(self, seconds: float) -> None:
        """Send and receive what is possible, waiting so long for the first of it."""
        for rank, stream in self._streams.items():
            self._watch(rank, stream)
        try:
            for key, events in self._selector.select(seconds):
                stream = self._streams[key.data]
                if events & selectors.EVENT_READ:
                    stream.receive()
                if events & selectors.EVENT_WRITE:
                    stream.send()
        except FrameError:
            self.is_lost = True
            raise

    def _watch(self, rank: int, stream: FrameStream) -> None:
        keys = self._selector.get_map()
        if stream.is_closed:
            if stream.connection in keys:
                self._selector.unregister(stream.connection)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if stream.has_unsent else 0)
        if keys[stream.connection].events != events:
            self._selector.modify(stream.connection, events, rank)

    def _missing(self, number: int) -> list[int]:
        return [rank for rank, each in self._streams.items() if not each.is_through(number)]

    def _check(self, missing: list[int], waited: float, what: str) -> None:
        gone = [
            rank
            for rank, stream in self._streams.items()
            if stream.is_closed and (rank in missing or not stream.said_goodbye)
        ]
        if gone:
            self._lose(gone, f"{self._names(gone)} closed the connection while {what} moved")
        if self._should_stop():
            self._lose([], f"told to stop after {waited:.2f} s of waiting for {what}")
        if waited > self._deadline_seconds:
            self._lose(
                missing,
                f"no answer after {waited:.1f} s of waiting for {what} from "
                f"{self._names(missing)} (deadline {self._deadline_seconds:g} s)",
            )

    def _lose(self, ranks: Iterable[int], message: str) -> NoReturn:
        self.is_lost = True
        self.lost_ranks = frozenset(self._members[rank] for rank in ranks)
        raise PeerLostError(
            f"{message}; see the log of that mpirun" if self.lost_ranks else message
        )

    def _names(self, ranks: Sequence[int]) -> str:
        word = "plan rank" if len(ranks) == 1 else "plan ranks"
        return f"{word} {', '.join(str(self._members[rank]) for rank in ranks)}"
