"""Ops whose result for a row depends on that row alone, bit for bit, whatever the batch around it.

A matrix library chooses its code, and with it the order of its sums, by shape, stride and
alignment. So every product here has one shape: tiles of 16 rows, filled up with zeros, in fresh
aligned buffers, by weights whose sides are filled up to whole vectors (with odd sides a row's bits
were seen to depend on its place in the tile).

Shape legend: see `ops.py`.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from moe_kernels.ops import Packed
from moe_kernels.reference import ReferenceRmsNorm
from moe_kernels.swiglu import StableSwiGlu

TILE_ROWS = 16
WHOLE_VECTORS = 64


class TiledLinear:
    """y = x W^T + b in tiles of 16 rows."""

    def prepare(self, weight_ND: torch.Tensor) -> Packed:
        return fill_up(weight_ND), weight_ND.shape[0]

    def __call__(
        self, x_TD: torch.Tensor, weight: Packed, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        filled, num_columns = weight
        y_TN = in_tiles(
            x_TD.to(filled.dtype), filled.shape[1], lambda tile: functional.linear(tile, filled)
        )[:, :num_columns].to(x_TD.dtype)
        return y_TN.contiguous() if bias_N is None else y_TN + bias_N.to(x_TD.dtype)


class TiledExperts:
    """SwiGLU experts, each over its own rows in tiles of 16."""

    def __init__(self) -> None:
        self._swiglu = StableSwiGlu()

    def prepare(self, gate_up_E2FD: torch.Tensor, down_EDF: torch.Tensor) -> Packed:
        return tuple(
            (torch.cat([fill_up(half) for half in gate_up.chunk(2)]), fill_up(down))
            for gate_up, down in zip(gate_up_E2FD, down_EDF, strict=True)
        )

    def gather(self, sources: Sequence[tuple[Packed, int]]) -> Packed:
        return tuple(packed[place] for packed, place in sources)

    def __call__(
        self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: Packed
    ) -> torch.Tensor:
        y_RD = torch.empty_like(rows_RD)
        start = 0
        for (gate_up, down), count in zip(weights, counts_E.tolist(), strict=True):
            if count:
                rows = slice(start, start + count)
                y_RD[rows] = self._expert(rows_RD[rows].to(down.dtype), gate_up, down)
            start += count
        return y_RD

    def _expert(
        self, rows_RD: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
    ) -> torch.Tensor:
        def compute(tile: torch.Tensor) -> torch.Tensor:
            return functional.linear(self._swiglu(functional.linear(tile, gate_up)), down)

        return in_tiles(rows_RD, gate_up.shape[1], compute)[:, : rows_RD.shape[1]]


class TiledRmsNorm:
    """The reference's norm in tiles of 16 rows."""

    def __init__(self) -> None:
        self._norm = ReferenceRmsNorm()

    def __call__(self, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        rows = x_TD.reshape(-1, x_TD.shape[-1])
        y = in_tiles(rows, rows.shape[-1], lambda tile: self._norm(tile, weight_D, eps))
        return y.view(x_TD.shape)


def in_tiles(
    x_RD: torch.Tensor, width: int, compute: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Rows of `compute` applied to zero-filled tiles [16, width] of x, one at a time."""
    num_rows, num_columns = x_RD.shape
    num_tiles = max(1, -(-num_rows // TILE_ROWS))
    filled = x_RD.new_zeros(num_tiles * TILE_ROWS, width)
    filled[:num_rows, :num_columns] = x_RD
    return torch.cat([compute(tile) for tile in torch.split(filled, TILE_ROWS)])[:num_rows]


def fill_up(weight_ND: torch.Tensor) -> torch.Tensor:
    """The weight at an aligned address, both sides filled up with zeros to whole vectors."""
    missing_rows, missing_columns = (-side % WHOLE_VECTORS for side in weight_ND.shape)
    if missing_rows or missing_columns:
        return functional.pad(weight_ND, (0, missing_columns, 0, missing_rows)).contiguous()
    aligned = weight_ND.is_contiguous() and weight_ND.data_ptr() % WHOLE_VECTORS == 0
    return weight_ND if aligned else weight_ND.clone(memory_format=torch.contiguous_format)
