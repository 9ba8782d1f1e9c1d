"""The exchange of a rank that is alone: everything comes back as it was sent, without MPI."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from moe_comm.transport.exchange import Ints

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Done(Generic[Result]):
    result: Result

    def poll(self) -> bool:
        return True

    def finish(self) -> Result:
        return self.result


class LocalExchange:
    """Implements Exchange for a group of one."""

    @property
    def rank(self) -> int:
        return 0

    @property
    def size(self) -> int:
        return 1

    @property
    def is_lost(self) -> bool:
        return False

    @property
    def lost_ranks(self) -> frozenset[int]:
        return frozenset()

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        return [data]

    def max_reduce(self, values: Ints) -> Ints:
        return values.copy()

    def start_all_to_all(
        self,
        rows_RD: torch.Tensor,
        send_counts: Sequence[int],
        slot_counts_G: Ints,
        slots_per_rank: Sequence[int],
    ) -> _Done[tuple[torch.Tensor, Ints]]:
        return _Done((rows_RD, slot_counts_G.reshape(1, -1)))

    def start_rows(
        self, rows_RD: torch.Tensor, send_counts: Sequence[int], recv_counts: Sequence[int]
    ) -> _Done[torch.Tensor]:
        return _Done(rows_RD)

    def allgather_rows(self, rows_RD: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        return rows_RD

    def barrier(self) -> None:
        return

    def close(self) -> None:
        return
