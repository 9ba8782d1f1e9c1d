"""Exchange over MPI: non-blocking collectives on communicators of its own, on host tensors.

mpi4py is imported only where there is a communicator, as importing it may start MPI.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from moe_comm.transport.exchange import Ints, PeerLostError, PendingCountedRows, WaitLoop

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, slots=True, eq=False)
class _Operation:
    """One collective under way, and the buffers that MPI uses until it is done."""

    request: MPI.Request
    buffers: tuple[object, ...]


@dataclass(slots=True, eq=False)
class _PendingRows:
    """Rows that are posted when it is their turn and their counts are known.

    Attributes:
        rows_RD: to send; once posted, to receive.
        counting: the exchange of counts, where they are not known from the start.
        counts_NS: rows by sender and slot here, once counted.
        moving: the exchange of rows, once posted.
    """

    exchange: MpiExchange
    rows_RD: torch.Tensor
    send_counts: Sequence[int]
    recv_counts: Sequence[int] = ()
    counting: _Operation | None = None
    counts_NS: Ints | None = None
    moving: _Operation | None = None

    def poll(self) -> bool:
        return self.exchange.have_arrived(self)

    def finish(self) -> torch.Tensor:
        self.exchange.wait_for_rows(self)
        return self.rows_RD


class MpiExchange:
    """Implements Exchange on two duplicates of `communicator`: one for rows, one for the rest.

    Rows are posted in the order of their starts on every rank, each as soon as its counts have
    come. MPI matches the collectives of a communicator by their order, and counts come when they
    come: hence two.

    Args:
        communicator: its rank order is the exchange's.
        deadline_seconds: the longest that any call waits for the other ranks.
        should_stop: the control flag; true ends a wait at once.

    Raises:
        PeerLostError: not all ranks came in time.
    """

    def __init__(
        self,
        communicator: MPI.Comm,
        deadline_seconds: float,
        should_stop: Callable[[], bool],
    ) -> None:
        from mpi4py import MPI

        self._mpi = MPI
        self._loop = WaitLoop(deadline_seconds, should_stop)
        # A lost peer leaves operations undone: their buffers must outlive them.
        self._in_flight: set[_Operation] = set()
        self._unposted: deque[_PendingRows] = deque()
        self._row_types: dict[int, MPI.Datatype] = {}
        self.is_lost = False
        self.lost_ranks: frozenset[int] = frozenset()
        self.rank = communicator.Get_rank()
        self.size = communicator.Get_size()
        self._small = self._duplicate(communicator)
        self._large = self._duplicate(communicator)

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        lengths = np.empty(self.size, dtype=np.int64)
        own_length = np.array([len(data)], dtype=np.int64)
        self._run("lengths of data", self._small.Iallgather, own_length, lengths)
        gathered = bytearray(int(lengths.sum()))
        send, receive = [data, self._mpi.BYTE], [gathered, lengths.tolist(), self._mpi.BYTE]
        self._run("data", self._small.Iallgatherv, send, receive)
        ends = np.cumsum(lengths)
        return [bytes(gathered[end - n : end]) for n, end in zip(lengths, ends, strict=True)]

    def max_reduce(self, values: Ints) -> Ints:
        result = np.empty_like(values)
        self._run("values", self._small.Iallreduce, values, result, self._mpi.MAX)
        return result

    def barrier(self) -> None:
        self._run("arrival", self._small.Ibarrier)

    def start_all_to_all(
        self,
        rows_RD: torch.Tensor,
        send_counts: Sequence[int],
        slot_counts_G: Ints,
        slots_per_rank: Sequence[int],
    ) -> PendingCountedRows:
        num_slots = slots_per_rank[self.rank]
        counts_NS = np.empty((self.size, num_slots), dtype=np.int64)
        send, receive = [slot_counts_G, slots_per_rank], [counts_NS, [num_slots] * self.size]
        counting = self._begin(self._small.Ialltoallv, send, receive)
        pending = _PendingRows(self, rows_RD, send_counts, (), counting, counts_NS)
        self._enqueue(pending)
        return PendingCountedRows(pending, counts_NS)

    def start_rows(
        self, rows_RD: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> _PendingRows:
        pending = _PendingRows(self, rows_RD, send_counts, recv_counts)
        self._enqueue(pending)
        return pending

    def allgather_rows(self, rows_RD: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        gathered_RD = rows_RD.new_empty(sum(counts), rows_RD.shape[1])
        row_type = self._row_type(rows_RD.shape[1] * rows_RD.element_size())
        send = [_as_bytes(rows_RD), len(rows_RD), row_type]
        receive = [_as_bytes(gathered_RD), list(counts), row_type]
        # Not where rows are posted once their counts are known, in an order of their own.
        self._run("gathered rows", self._small.Iallgatherv, send, receive)
        return gathered_RD

    def wait_for_rows(self, pending: _PendingRows) -> None:
        self._wait(lambda: self.have_arrived(pending), "rows")

    def have_arrived(self, pending: _PendingRows) -> bool:
        self._post_ready()
        return pending.moving is not None and self._is_done(pending.moving)

    def abandon(self) -> None:
        """Use it no more, whatever is under way; nobody is waited for."""
        self.is_lost = True

    def close(self) -> None:
        """Meets the other ranks, so that none leaves while another still receives."""
        if self.is_lost:
            return
        try:
            self.barrier()
        except PeerLostError:
            return
        self._small.Free()
        self._large.Free()
        for row_type in self._row_types.values():
            row_type.Free()

    def _enqueue(self, pending: _PendingRows) -> None:
        self._unposted.append(pending)
        self._post_ready()

    def _post_ready(self) -> None:
        while self._unposted and self._has_counts(self._unposted[0]):
            self._post(self._unposted.popleft())

    def _has_counts(self, pending: _PendingRows) -> bool:
        return pending.counting is None or self._is_done(pending.counting)

    def _post(self, pending: _PendingRows) -> None:
        if pending.counts_NS is not None:
            pending.recv_counts = pending.counts_NS.sum(1).tolist()
        rows_RD = pending.rows_RD
        received_RD = rows_RD.new_empty(sum(pending.recv_counts), rows_RD.shape[1])
        row_type = self._row_type(rows_RD.shape[1] * rows_RD.element_size())
        pending.moving = self._begin(
            self._large.Ialltoallv,
            [_as_bytes(rows_RD), pending.send_counts, row_type],
            [_as_bytes(received_RD), pending.recv_counts, row_type],
        )
        pending.rows_RD = received_RD

    def _row_type(self, num_bytes: int) -> MPI.Datatype:
        """Counting in rows, not bytes, keeps MPI's 32-bit counts and offsets from overflowing."""
        if num_bytes not in self._row_types:
            self._row_types[num_bytes] = self._mpi.BYTE.Create_contiguous(num_bytes).Commit()
        return self._row_types[num_bytes]

    def _duplicate(self, communicator: MPI.Comm) -> MPI.Comm:
        duplicate, request = communicator.Idup()
        self._wait(request.Test, "a communicator")
        return duplicate

    def _run(self, what: str, start: Callable[..., MPI.Request], *buffers: object) -> None:
        operation = self._begin(start, *buffers)
        self._wait(lambda: self._is_done(operation), what)

    def _begin(self, start: Callable[..., MPI.Request], *buffers: object) -> _Operation:
        try:
            operation = _Operation(start(*buffers), buffers)
        except self._mpi.Exception as error:
            raise self._lost(f"MPI refuses to start an exchange: {error}") from error
        self._in_flight.add(operation)
        return operation

    def _is_done(self, operation: _Operation) -> bool:
        try:
            is_done = bool(operation.request.Test())
        except self._mpi.Exception as error:
            raise self._lost(f"MPI reports a failed exchange: {error}") from error
        if is_done:
            self._in_flight.discard(operation)
        return is_done

    def _wait(self, is_done: Callable[[], bool], what: str) -> None:
        try:
            self._loop.until(is_done, f"{what} from the {self.size - 1} other ranks")
        except PeerLostError:
            self.is_lost = True
            raise

    def _lost(self, message: str) -> PeerLostError:
        self.is_lost = True
        return PeerLostError(message)


def _as_bytes(rows_RD: torch.Tensor) -> npt.NDArray[np.uint8]:
    assert rows_RD.is_contiguous()
    as_bytes: npt.NDArray[np.uint8] = rows_RD.view(-1).view(torch.uint8).numpy()
    return as_bytes
