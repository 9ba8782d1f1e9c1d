"""Rows as frames of a TcpExchange, and rows made from the frames that came.

Shape legend: R rows, D width, N ranks, S slots here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch

from moe_comm.transport.exchange import Ints
from moe_comm.transport.tcp_stream import Bytes, FrameError, Kind


class Frames(Protocol):
    """The exchange that frames come from."""

    @property
    def rank(self) -> int: ...

    def poll(self, number: int) -> bool:
        """Send and receive what is possible -> whether exchange `number` is through."""
        ...

    def wait(self, number: int, kind: Kind, what: str) -> list[Bytes | None]:
        """What each rank sent in exchange `number`, in rank order; None is this rank's own."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PendingRows:
    exchange: Frames
    number: int
    rows_RD: torch.Tensor
    send_counts: Sequence[int]
    recv_counts: Sequence[int]

    def poll(self) -> bool:
        return self.exchange.poll(self.number)

    def finish(self) -> torch.Tensor:
        frames = self.exchange.wait(self.number, Kind.ROWS, "rows")
        own_RD = split_rows(self.rows_RD, self.send_counts)[self.exchange.rank]
        return join_rows(own_RD, frames, self.recv_counts)


@dataclass(frozen=True, slots=True, eq=False)
class PendingCountedRows:
    exchange: Frames
    number: int
    rows_RD: torch.Tensor
    send_counts: Sequence[int]
    slot_counts: list[Ints]

    def poll(self) -> bool:
        return self.exchange.poll(self.number)

    def finish(self) -> tuple[torch.Tensor, Ints]:
        frames = self.exchange.wait(self.number, Kind.COUNTED_ROWS, "rows")
        own, rank = self.slot_counts[self.exchange.rank], self.exchange.rank
        num_bytes = own.nbytes
        counts_NS = np.stack(
            [own if frame is None else frame[:num_bytes].view(np.int64) for frame in frames]
        )
        rows = [None if frame is None else frame[num_bytes:] for frame in frames]
        own_RD = split_rows(self.rows_RD, self.send_counts)[rank]
        return join_rows(own_RD, rows, counts_NS.sum(1).tolist()), counts_NS


def split_rows(rows_RD: torch.Tensor, counts: Sequence[int]) -> list[torch.Tensor]:
    return [rows_RD[end - n : end] for n, end in zip(counts, accumulate(counts), strict=True)]


def int_memory(values: Ints) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def row_memory(rows_RD: torch.Tensor) -> memoryview:
    return _as_bytes(rows_RD).data


def join_rows(
    own_RD: torch.Tensor,
    frames: Sequence[Bytes | None],
    counts: Sequence[int],
) -> torch.Tensor:
    """Rows of all ranks in rank order.

    Raises:
        FrameError: a frame holds another number of rows than its sender was to send.
    """
    row_bytes = own_RD.shape[1] * own_RD.element_size()
    received_RD = own_RD.new_empty(sum(counts), own_RD.shape[1])
    space = _as_bytes(received_RD)
    for frame, count in zip(frames, counts, strict=True):
        part = _as_bytes(own_RD) if frame is None else frame
        if part.nbytes != count * row_bytes:
            raise FrameError(f"rows of {part.nbytes} bytes came, {count * row_bytes} were to come")
        space[: part.nbytes] = part
        space = space[part.nbytes :]
    return received_RD


def _as_bytes(rows_RD: torch.Tensor) -> Bytes:
    assert rows_RD.is_contiguous()
    as_bytes: Bytes = rows_RD.reshape(-1).view(torch.uint8).numpy()
    return as_bytes
