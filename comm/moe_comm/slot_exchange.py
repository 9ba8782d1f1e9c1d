"""Rows to the slots of an exchange's ranks, and back: the way inside one pool.

Shape legend: R rows, D width, N ranks, S slots here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moe_comm.home import SlotRows
from moe_comm.routing import rows_per_rank
from moe_comm.transport.exchange import Exchange, Ints, Pending


@dataclass(frozen=True, slots=True)
class SentRows:
    """Rows on their way to slots.

    Attributes:
        counts: rows for each rank.
    """

    pending: Pending[tuple[torch.Tensor, Ints]]
    counts: Sequence[int]

    def poll(self) -> bool:
        return self.pending.poll()

    def finish(self) -> tuple[torch.Tensor, Ints]:
        """-> the rows for this rank, by sender and slot, and their counts_NS."""
        return self.pending.finish()


class SlotExchange:
    """Attributes:
    bytes_sent: payload bytes sent to other ranks so far.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.bytes_sent = 0

    def start(self, out: SlotRows, slots_per_rank: Sequence[int]) -> SentRows:
        counts = rows_per_rank(out.counts_G, slots_per_rank)
        self._count_bytes(out.rows_RD, counts)
        pending = self._exchange.start_all_to_all(out.rows_RD, counts, out.counts_G, slots_per_rank)
        return SentRows(pending, counts)

    def start_back(
        self, y_RD: torch.Tensor, received: Sequence[int], sent: Sequence[int]
    ) -> Pending[torch.Tensor]:
        """Return a row for each one received, in their order -> one for each one sent."""
        self._count_bytes(y_RD, received)
        return self._exchange.start_rows(y_RD, received, sent)

    def _count_bytes(self, rows_RD: torch.Tensor, counts: Sequence[int]) -> None:
        num_rows = sum(counts) - counts[self._exchange.rank]
        self.bytes_sent += num_rows * rows_RD.shape[1] * rows_RD.element_size()
