"""CollectiveDispatcher: experts spread over the like ranks of one exchange.

Shape legend: T tokens here, D width, K experts chosen per token, E experts on this rank,
R rows, N ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from moe_comm.dispatcher import ExpertRows, Handle
from moe_comm.home import check_num_ranks, choose, sort_by_expert, sort_by_slot
from moe_comm.routing import RoutingTable
from moe_comm.slot_exchange import SentRows, SlotExchange
from moe_comm.terms import Terms
from moe_comm.transport.exchange import Exchange, Pending


@dataclass(frozen=True, slots=True)
class _Handle:
    """Attributes:
    terms: what adds the rows at their home.
    sent, received: rows to and from each rank.
    return_R: takes the experts' rows back into the order in which they were received.
    """

    terms: Terms
    sent: Sequence[int]
    received: Sequence[int]
    return_R: torch.Tensor


@dataclass(frozen=True, slots=True)
class _PendingDispatch:
    rows: SentRows
    terms: Terms

    def poll(self) -> None:
        self.rows.poll()

    def finish(self) -> tuple[ExpertRows, _Handle]:
        rows_RD, counts_NE = self.rows.finish()
        rows, return_R = sort_by_expert(rows_RD, counts_NE)
        return rows, _Handle(self.terms, self.rows.counts, counts_NE.sum(1).tolist(), return_R)


@dataclass(frozen=True, slots=True)
class _PendingCombine:
    rows: Pending[torch.Tensor]
    terms: Terms

    def finish(self) -> torch.Tensor:
        rows_RD = self.rows.finish()
        return self.terms.add_in_order(rows_RD, rows_RD.dtype)


class CollectiveDispatcher:
    """Implements Dispatcher over an exchange: each (token, expert) row goes to its rank and back.

    Args:
        exchange: the ranks of the expert-parallel group.
        tables: by the model's layer; with the slots of each rank of the exchange, in its order.
    """

    def __init__(self, exchange: Exchange, tables: Mapping[int, RoutingTable]) -> None:
        check_num_ranks(tables, exchange.size)
        self._num_ranks = exchange.size
        self._exchange = SlotExchange(exchange)
        self._tables = tables

    def replace_tables(self, tables: Mapping[int, RoutingTable]) -> None:
        check_num_ranks(tables, self._num_ranks)
        self._tables = tables

    @property
    def bytes_sent(self) -> int:
        return self._exchange.bytes_sent

    @property
    def bytes_by_link(self) -> Mapping[str, int]:
        return {}

    def start(
        self,
        layer: int,
        x_TD: torch.Tensor,
        ids_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        keys_T: torch.Tensor,
    ) -> _PendingDispatch:
        table = self._tables[layer]
        out = sort_by_slot(x_TD, weights_TK, choose(table, ids_TK, keys_T), table.num_slots)
        return _PendingDispatch(self._exchange.start(out, table.slots_per_rank), out.terms)

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> _PendingCombine:
        assert isinstance(handle, _Handle)
        by_sender_RD = y_RD.index_select(0, handle.return_R)
        rows = self._exchange.start_back(by_sender_RD, handle.received, handle.sent)
        return _PendingCombine(rows, handle.terms)
