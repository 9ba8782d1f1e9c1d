"""The bridge's links: tokens to the entry ranks of other pools, and float32 sums back.

Shape legend: D width, K experts chosen per token, N ranks, C crossings from here, A arrivals here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moe_comm.bridge_routing import GroupPools
from moe_comm.bridge_rows import LinkRows, Wires, wires_by_rank
from moe_comm.transport.exchange import Exchange, Ints, Pending
from moe_comm.wire import CrossingRows, on_host


@dataclass(frozen=True, slots=True)
class SentTokens:
    """Tokens on their way to other pools.

    Attributes:
        counts: tokens for each rank of the group.
    """

    pending: Pending[tuple[torch.Tensor, Ints]]
    rows: LinkRows
    counts: Sequence[int]

    def poll(self) -> bool:
        return self.pending.poll()

    def finish(
        self, dtype: torch.dtype, device: torch.device
    ) -> tuple[CrossingRows, Sequence[int]]:
        """-> the tokens that arrive here, in `dtype` on `device`, and how many from each rank."""
        units, units_N1 = self.pending.finish()
        arrived = self.rows.in_rows(units_N1.reshape(-1).tolist())
        return self.rows.unpack(units, arrived, dtype, device), arrived


class BridgeLinks:
    """Counts the payload bytes that it sends; `bytes_by_link` has a key for every other pool.

    Args:
        group: host tensors among all ranks of the expert-parallel group.

    Raises:
        ValueError: two pools of the group have no link.
    """

    def __init__(self, group: Exchange, pools: GroupPools, wires: Wires) -> None:
        own = pools.names[group.rank]
        self._group = group
        self._wires = wires
        self._wire_N = wires_by_rank(pools, wires, group.rank)
        self._link_N = [f"{own}>{other}" for other in pools.names]
        self._rows: dict[tuple[int, int], LinkRows] = {}
        self.bytes_by_link = {f"{own}>{other}": 0 for other in pools.order if other != own}

    def start(self, tokens: CrossingRows, counts: Sequence[int]) -> SentTokens:
        """
        Args:
            tokens: sorted by the rank they go to; `counts` to each.
        """
        rows = self._rows_for(tokens.x_CD.shape[1], tokens.slot_CK.shape[1])
        self._count_bytes(counts, rows.num_bytes)
        units = rows.in_units(counts)
        pending = self._group.start_all_to_all(
            rows.pack(tokens, counts), units, np.array(units, dtype=np.int64), [1] * len(units)
        )
        return SentTokens(pending, rows, counts)

    def start_back(
        self, sums_AD: torch.Tensor, arrived: Sequence[int], sent: Sequence[int]
    ) -> Pending[torch.Tensor]:
        """Return a float32 sum for each token that arrived, in their order -> one for each sent,
        on the host."""
        self._count_bytes(arrived, [sums_AD.shape[1] * sums_AD.element_size()] * len(arrived))
        return self._group.start_rows(on_host(sums_AD), arrived, sent)

    def _rows_for(self, width: int, num_chosen: int) -> LinkRows:
        key = (width, num_chosen)
        if key not in self._rows:
            self._rows[key] = LinkRows(self._wire_N, self._wires, width, num_chosen)
        return self._rows[key]

    def _count_bytes(self, counts: Sequence[int], num_bytes: Sequence[int]) -> None:
        for link, count, size in zip(self._link_N, counts, num_bytes, strict=True):
            if count:
                self.bytes_by_link[link] += count * size
