"""The Dispatcher protocol: tokens to the ranks that hold their experts, and back, in two halves.

Shape legend: T tokens here, D width, K experts chosen per token, E experts on this rank,
R rows received.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from moe_comm.routing import RoutingTable


@dataclass(frozen=True, slots=True)
class ExpertRows:
    """Rows for this rank's experts.

    Attributes:
        rows_RD: sorted by local expert.
        counts_E: int64 on the host: rows of each local expert; sums to R.
    """

    rows_RD: torch.Tensor
    counts_E: torch.Tensor


class Handle(Protocol):
    """What a dispatch remembers for its combine; frozen, opaque, and used once."""


class PendingDispatch(Protocol):
    def poll(self) -> None:
        """Move on what can be moved on at once; to be called between pieces of other work."""
        ...

    def finish(self) -> tuple[ExpertRows, Handle]: ...


class PendingCombine(Protocol):
    def finish(self) -> torch.Tensor:
        """-> y_TD: for each token the weighted sum of its experts' rows, added in fp32 in order
        of expert id whatever the placement, in the dtype that x_TD had. Where the group has
        several pools, each pool's experts are added so, and then the pools' sums."""
        ...


class Dispatcher(Protocol):
    """Every rank of an EP group calls start, finish, start_combine, finish in the same order;
    T may be 0. Work may be done between a start and its finish."""

    def start(
        self,
        layer: int,
        x_TD: torch.Tensor,
        ids_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        keys_T: torch.Tensor,
    ) -> PendingDispatch:
        """
        Args:
            layer: the model's layer, which picks the placement.
            ids_TK: int64 global expert ids.
            weights_TK: float32 weight of each chosen expert.
            keys_T: int64 on the host, made by `routing.token_keys` from token id and position;
                they choose among an expert's replicas, so that the choice depends on nothing else.
        """
        ...

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> PendingCombine: ...

    def replace_tables(self, tables: Mapping[int, RoutingTable]) -> None:
        """Place experts anew from the next start on; all ranks of the group between the same two
        steps, each with its new experts.

        Raises:
            ValueError: a table is for another number of ranks.
        """
        ...

    @property
    def bytes_sent(self) -> int:
        """Payload bytes sent to other ranks so far."""
        ...

    @property
    def bytes_by_link(self) -> Mapping[str, int]:
        """Of these, payload bytes sent to other pools so far; `from>to` by their names."""
        ...
