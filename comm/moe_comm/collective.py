"""CollectiveDispatcher: experts spread over the like ranks of one exchange.

Shape legend: T tokens here, D width, K experts chosen per token, E experts on this rank,
R rows, N ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from moe_comm.dispatcher import ExpertRows, Handle
from moe_comm.home import HomeTokens, add_at_home, check_num_ranks, sort_by_slot
from moe_comm.routing import RoutingTable, inverse_order, slot_order
from moe_comm.transport.exchange import Exchange, Ints, Pending


@dataclass(frozen=True, slots=True)
class _Handle:
    """Attributes:
    tokens: what their home keeps.
    sent, received: rows to and from each rank.
    return_R: takes the experts' rows back into the order in which they were received.
    """

    tokens: HomeTokens
    sent: Sequence[int]
    received: Sequence[int]
    return_R: torch.Tensor


@dataclass(frozen=True, slots=True)
class _PendingDispatch:
    rows: Pending[tuple[torch.Tensor, Ints]]
    tokens: HomeTokens
    sent: Sequence[int]

    def finish(self) -> tuple[ExpertRows, _Handle]:
        rows_RD, counts_NE = self.rows.finish()
        order_R = slot_order(counts_NE)
        return_R = torch.from_numpy(inverse_order(order_R)).to(rows_RD.device)
        received: list[int] = counts_NE.sum(1).tolist()
        handle = _Handle(self.tokens, self.sent, received, return_R)
        sorted_RD = rows_RD.index_select(0, torch.from_numpy(order_R).to(rows_RD.device))
        return ExpertRows(sorted_RD, torch.from_numpy(counts_NE.sum(0))), handle


@dataclass(frozen=True, slots=True)
class _PendingCombine:
    rows: Pending[torch.Tensor]
    tokens: HomeTokens

    def finish(self) -> torch.Tensor:
        return add_at_home(self.rows.finish(), self.tokens)


class CollectiveDispatcher:
    """Implements Dispatcher over an exchange: each (token, expert) row goes to its rank and back.

    Args:
        exchange: the ranks of the expert-parallel group.
        tables: by the model's layer; with the slots of each rank of the exchange, in its order.
    """

    def __init__(self, exchange: Exchange, tables: Mapping[int, RoutingTable]) -> None:
        check_num_ranks(tables, exchange.size)
        self._exchange = exchange
        self._tables = tables
        self._bytes_sent = 0

    @property
    def bytes_sent(self) -> int:
        return self._bytes_sent

    def start(
        self,
        layer: int,
        x_TD: torch.Tensor,
        ids_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        keys_T: torch.Tensor,
    ) -> _PendingDispatch:
        table = self._tables[layer]
        rows_RD, slot_counts_G, tokens = sort_by_slot(table, x_TD, ids_TK, weights_TK, keys_T)
        sent = table.rows_per_rank(slot_counts_G)
        self._count_bytes(rows_RD, sent)
        rows = self._exchange.start_all_to_all(rows_RD, sent, slot_counts_G, table.slots_per_rank)
        return _PendingDispatch(rows, tokens, sent)

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> _PendingCombine:
        assert isinstance(handle, _Handle)
        by_sender_RD = y_RD.index_select(0, handle.return_R)
        self._count_bytes(y_RD, handle.received)
        rows = self._exchange.start_rows(by_sender_RD, handle.received, handle.sent)
        return _PendingCombine(rows, handle.tokens)

    def _count_bytes(self, rows_RD: torch.Tensor, sent: Sequence[int]) -> None:
        num_rows = sum(sent) - sent[self._exchange.rank]
        self._bytes_sent += num_rows * rows_RD.shape[1] * rows_RD.element_size()
