"""The Exchange protocol: what a transport does for the ranks of one group, and how it waits.

Shape legend: R rows, D width, G expert slots of all ranks in rank order, N ranks, S slots here.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

Ints: TypeAlias = npt.NDArray[np.int64]
Result_co = TypeVar("Result_co", covariant=True)

_NUM_SPINS = 32
_YIELD_SECONDS = 0.002
_SLEEP_SECONDS = 0.0001


class PeerLostError(ConnectionError):
    """The other ranks did not answer in time, or control told this rank to stop waiting.

    The exchange cannot be used again: what it had under way may still arrive.
    """


class Pending(Protocol[Result_co]):
    """A half-done exchange; finish it once, in the order of the starts."""

    def poll(self) -> bool:
        """Move on what can be moved on at once -> whether `finish` would not wait.

        Raises:
            PeerLostError: the exchange has failed.
        """
        ...

    def finish(self) -> Result_co:
        """
        Raises:
            PeerLostError: the deadline has passed, or control said stop.
        """
        ...


@dataclass(frozen=True, slots=True)
class PendingCountedRows:
    """Rows under way whose counts are kept beside them.

    Attributes:
        counts_NS: by sender and slot here; filled in by the time that the rows have come.
    """

    rows: Pending[torch.Tensor]
    counts_NS: Ints

    def poll(self) -> bool:
        return self.rows.poll()

    def finish(self) -> tuple[torch.Tensor, Ints]:
        return self.rows.finish(), self.counts_NS


class Exchange(Protocol):
    """The ranks of one group; all of them make the same calls in the same order.

    Ranks are numbered 0..size-1 in order of plan rank. One thread makes all the calls. Every
    call that waits may raise PeerLostError, and none waits longer than the deadline that the
    exchange was made with.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def is_lost(self) -> bool:
        """A call has raised PeerLostError: the exchange cannot be used again."""
        ...

    @property
    def lost_ranks(self) -> frozenset[int]:
        """Plan ranks that are known to be lost; empty where the transport cannot tell."""
        ...

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        """-> the data of each rank, in rank order; lengths may differ."""
        ...

    def max_reduce(self, values: Ints) -> Ints:
        """-> the largest of all ranks' values, element by element."""
        ...

    def start_all_to_all(
        self,
        rows_RD: torch.Tensor,
        send_counts: Sequence[int],
        slot_counts_G: Ints,
        slots_per_rank: Sequence[int],
    ) -> Pending[tuple[torch.Tensor, Ints]]:
        """Send rows and, with them, how many are for each slot of their receiver.

        Args:
            rows_RD: sorted by receiver and there by slot.
            send_counts: rows for each rank.
            slot_counts_G: rows for each slot of rank 0, then of rank 1, ...
            slots_per_rank: the same on all ranks.

        Returns:
            Rows received, in order of sender, and their counts_NS by sender and slot.
        """
        ...

    def start_rows(
        self, rows_RD: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> Pending[torch.Tensor]:
        """Send rows whose counts both sides know -> rows received, in order of sender."""
        ...

    def allgather_rows(self, rows_RD: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """-> the rows of each rank, in rank order; the same bits on every rank.

        Args:
            rows_RD: contiguous.
            counts: rows of each rank, which all of them know.
        """
        ...

    def barrier(self) -> None: ...

    def close(self) -> None:
        """Leave the group; waits for nobody where a peer was lost."""
        ...


class WaitLoop:
    """Waits for a test to come true, watching a deadline and the control flag.

    Spins for some microseconds, then yields the core at each turn, then sleeps shortly, so that
    more ranks than cores do not starve the one that is being waited for.

    Args:
        deadline_seconds: the longest wait.
        should_stop: the control flag; true ends a wait at once.
    """

    def __init__(self, deadline_seconds: float, should_stop: Callable[[], bool]) -> None:
        self._deadline_seconds = deadline_seconds
        self._should_stop = should_stop

    def until(self, is_done: Callable[[], bool], what: str) -> None:
        """
        Raises:
            PeerLostError: the deadline has passed, or control said stop.
        """
        for _ in range(_NUM_SPINS):
            if is_done():
                return
        started = time.monotonic()
        while not is_done():
            waited = time.monotonic() - started
            self._check(waited, what)
            if waited < _YIELD_SECONDS:
                os.sched_yield()
            else:
                time.sleep(_SLEEP_SECONDS)

    def _check(self, waited: float, what: str) -> None:
        if self._should_stop():
            raise PeerLostError(f"told to stop after {waited:.2f} s of waiting for {what}")
        if waited > self._deadline_seconds:
            raise PeerLostError(
                f"no answer after {waited:.1f} s of waiting for {what} (deadline"
                f" {self._deadline_seconds:g} s); another rank has died or hangs, see its log"
            )
