"""The rows that cross from one rank to those of all other pools, and back to it, in one buffer.

Links may have unlike precisions, and rows of unlike lengths. The exchange counts in units, the
largest length that divides them all: one exchange carries every link's rows, and none is padded.

Shape legend: C tokens that cross, K experts chosen per token, D width, N ranks, U units.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import torch

from moe_comm.bridge_routing import GroupPools
from moe_comm.wire import CrossingRows, RowFormat, Wire

Wires = Mapping[frozenset[str], Wire]


def wires_by_rank(pools: GroupPools, wires: Wires, rank: int) -> list[Wire | None]:
    """Of the links from one rank to each; None inside its pool.

    Raises:
        ValueError: two pools of the group have no link.
    """
    for one, other in combinations(pools.order, 2):
        if frozenset((one, other)) not in wires:
            raise ValueError(
                f"links: none between {one} and {other}, whose ranks share an expert-parallel"
                f" group; declare one with `between: [{one}, {other}]`"
            )
    own = pools.names[rank]
    return [None if name == own else wires[frozenset((own, name))] for name in pools.names]


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring ranks to which rows have the same format."""

    format: RowFormat
    first: int
    end: int


class LinkRows:
    """Packs and unpacks the rows of one width and number of experts per token.

    Args:
        wire_N: of the links from this rank to each; None inside its pool.
        wires: of all links of the group; every rank must count in the same units.

    Attributes:
        num_bytes: of a row to each rank, or from it; 0 inside the pool.
    """

    def __init__(
        self, wire_N: Sequence[Wire | None], wires: Wires, width: int, num_chosen: int
    ) -> None:
        formats = {wire: RowFormat(wire, width, num_chosen) for wire in wires.values()}
        self._unit = math.gcd(*(each.num_bytes for each in formats.values()))
        self._runs = list(_runs([None if wire is None else formats[wire] for wire in wire_N]))
        self.num_bytes = [0 if wire is None else formats[wire].num_bytes for wire in wire_N]

    def pack(self, rows: CrossingRows, counts: Sequence[int]) -> torch.Tensor:
        """
        Args:
            rows: sorted by the rank they go to; `counts` to each.

        Returns:
            units_UB: uint8 on the host; for each rank as many as `in_units` says.
        """
        parts = rows.split(self._by_run(counts))
        packed = [run.format.pack(part) for run, part in zip(self._runs, parts, strict=True)]
        flat = packed[0].view(-1) if len(packed) == 1 else torch.cat([p.view(-1) for p in packed])
        return flat.view(len(flat) // self._unit, self._unit)

    def unpack(
        self,
        units_UB: torch.Tensor,
        counts: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> CrossingRows:
        """
        Args:
            units_UB: sorted by the rank they come from.
            counts: rows from each rank.
            dtype, device: of the values.
        """
        sizes = self._by_run(self.in_units(counts))
        return CrossingRows.together(
            [
                run.format.unpack(part_UB.reshape(-1), dtype, device)
                for run, part_UB in zip(self._runs, units_UB.split_with_sizes(sizes), strict=True)
            ]
        )

    def in_units(self, counts: Sequence[int]) -> list[int]:
        return [n * size // self._unit for n, size in zip(counts, self.num_bytes, strict=True)]

    def in_rows(self, units: Sequence[int]) -> list[int]:
        return [n * self._unit // max(1, s) for n, s in zip(units, self.num_bytes, strict=True)]

    def _by_run(self, counts: Sequence[int]) -> list[int]:
        return [sum(counts[run.first : run.end]) for run in self._runs]


def _runs(format_N: Sequence[RowFormat | None]) -> Iterator[_Run]:
    for row_format, run in groupby(enumerate(format_N), key=lambda pair: pair[1]):
        ranks = [rank for rank, _ in run]
        if row_format is not None:
            yield _Run(row_format, ranks[0], ranks[-1] + 1)
