"""LocalDispatcher: all experts on this rank; the oracle of the other dispatchers."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from moe_comm.dispatcher import ExpertRows, Handle
from moe_comm.home import check_num_ranks, choose, sort_by_slot
from moe_comm.routing import RoutingTable
from moe_comm.terms import Terms


@dataclass(frozen=True, slots=True)
class _PendingDispatch:
    rows: ExpertRows
    terms: Terms

    def poll(self) -> None:
        return

    def finish(self) -> tuple[ExpertRows, Terms]:
        return self.rows, self.terms


@dataclass(frozen=True, slots=True)
class _PendingCombine:
    y_RD: torch.Tensor
    terms: Terms

    def finish(self) -> torch.Tensor:
        return self.terms.add_in_order(self.y_RD, self.y_RD.dtype)


class LocalDispatcher:
    """Implements Dispatcher where the expert-parallel group is one rank.

    Args:
        tables: by the model's layer; each with the slots of one rank.
    """

    def __init__(self, tables: Mapping[int, RoutingTable]) -> None:
        check_num_ranks(tables, 1)
        self._tables = tables

    def replace_tables(self, tables: Mapping[int, RoutingTable]) -> None:
        check_num_ranks(tables, 1)
        self._tables = tables

    @property
    def bytes_sent(self) -> int:
        return 0

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
        rows = ExpertRows(out.rows_RD, torch.from_numpy(out.counts_G))
        return _PendingDispatch(rows, out.terms)

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> _PendingCombine:
        assert isinstance(handle, Terms)
        return _PendingCombine(y_RD, handle)
