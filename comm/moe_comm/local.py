"""LocalDispatcher: all experts on this rank; the oracle of the other dispatchers."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from moe_comm.dispatcher import ExpertRows, Handle
from moe_comm.home import HomeTokens, add_at_home, check_num_ranks, sort_by_slot
from moe_comm.routing import RoutingTable


@dataclass(frozen=True, slots=True)
class _PendingDispatch:
    rows: ExpertRows
    tokens: HomeTokens

    def finish(self) -> tuple[ExpertRows, HomeTokens]:
        return self.rows, self.tokens


@dataclass(frozen=True, slots=True)
class _PendingCombine:
    y_RD: torch.Tensor
    tokens: HomeTokens

    def finish(self) -> torch.Tensor:
        return add_at_home(self.y_RD, self.tokens)


class LocalDispatcher:
    """Implements Dispatcher where the expert-parallel group is one rank.

    Args:
        tables: by the model's layer; each with the slots of one rank.
    """

    def __init__(self, tables: Mapping[int, RoutingTable]) -> None:
        check_num_ranks(tables, 1)
        self._tables = tables

    @property
    def bytes_sent(self) -> int:
        return 0

    def start(
        self,
        layer: int,
        x_TD: torch.Tensor,
        ids_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        keys_T: torch.Tensor,
    ) -> _PendingDispatch:
        rows_RD, counts_E, tokens = sort_by_slot(
            self._tables[layer], x_TD, ids_TK, weights_TK, keys_T
        )
        return _PendingDispatch(ExpertRows(rows_RD, torch.from_numpy(counts_E)), tokens)

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> _PendingCombine:
        assert isinstance(handle, HomeTokens)
        return _PendingCombine(y_RD, handle)
