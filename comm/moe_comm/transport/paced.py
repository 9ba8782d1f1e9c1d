"""An exchange whose rows leave no sooner than a declared link would have carried them."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from moe_devices.pacer import Pacer
from moe_devices.work import LinkWork

from moe_comm.transport.exchange import Exchange, Ints, Pending

Result = TypeVar("Result")


def over_links(inner: Exchange, pacer: Pacer, links: Sequence[str]) -> Exchange:
    """The exchange as it is on real devices, else with the links' declared time.

    Args:
        links: by rank of the exchange, the link `from>to` that its rows take; empty where they
            take none.
    """
    return inner if pacer.is_real else PacedExchange(inner, pacer, links)


@dataclass(frozen=True, slots=True, eq=False)
class _Departure(Generic[Result]):
    """Rows that are posted once the link would have carried them, and so arrive at once.

    A receiver does not know when its sender began: only the sender can make both wait.
    """

    pacer: Pacer
    begun: float
    work: LinkWork
    start: Callable[[], Pending[Result]]

    def poll(self) -> bool:
        """Nothing before it has departed: when that is, all ranks must agree on."""
        return False

    def finish(self) -> Result:
        self.pacer.wait(self.begun, lambda: self.work)
        return self.start().finish()


class PacedExchange:
    """Implements Exchange over another one, for emulation: rows for other pools take the declared
    time of their link, counted from the start. Work between start and finish overlaps with it.
    """

    def __init__(self, inner: Exchange, pacer: Pacer, links: Sequence[str]) -> None:
        self._inner = inner
        self._pacer = pacer
        self._links = tuple(links)
        assert len(self._links) == inner.size

    @property
    def rank(self) -> int:
        return self._inner.rank

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def is_lost(self) -> bool:
        return self._inner.is_lost

    @property
    def lost_ranks(self) -> frozenset[int]:
        return self._inner.lost_ranks

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        return self._inner.allgather_bytes(data)

    def max_reduce(self, values: Ints) -> Ints:
        return self._inner.max_reduce(values)

    def start_all_to_all(
        self,
        rows_RD: torch.Tensor,
        send_counts: Sequence[int],
        slot_counts_G: Ints,
        slots_per_rank: Sequence[int],
    ) -> Pending[tuple[torch.Tensor, Ints]]:
        return self._depart(
            rows_RD,
            send_counts,
            lambda: self._inner.start_all_to_all(
                rows_RD, send_counts, slot_counts_G, slots_per_rank
            ),
        )

    def start_rows(
        self, rows_RD: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> Pending[torch.Tensor]:
        return self._depart(
            rows_RD, send_counts, lambda: self._inner.start_rows(rows_RD, send_counts, recv_counts)
        )

    def allgather_rows(self, rows_RD: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        return self._inner.allgather_rows(rows_RD, counts)

    def barrier(self) -> None:
        self._inner.barrier()

    def close(self) -> None:
        self._inner.close()

    def _depart(
        self,
        rows_RD: torch.Tensor,
        send_counts: Sequence[int],
        start: Callable[[], Pending[Result]],
    ) -> _Departure[Result]:
        row_bytes = rows_RD.shape[1] * rows_RD.element_size()
        num_bytes: Counter[str] = Counter()
        for link, count in zip(self._links, send_counts, strict=True):
            if link and count:
                num_bytes[link] += count * row_bytes
        return _Departure(self._pacer, time.perf_counter(), LinkWork(num_bytes), start)
