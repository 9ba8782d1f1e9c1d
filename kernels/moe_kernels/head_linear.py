"""A matrix of its own for each head, as absorbed latent attention needs, in plain torch.

Shape legend: T tokens, H heads, a width in, b width out, N tiles, R rows of a tile.
"""

import torch

from moe_kernels.deterministic import TILE_ROWS, fill_up
from moe_kernels.ops import Packed


class ReferenceHeadLinear:
    """One batched product over the heads; the packed weight is the weight."""

    def prepare(self, weight_Hba: torch.Tensor) -> Packed:
        return weight_Hba

    def __call__(self, x_THa: torch.Tensor, weight: Packed) -> torch.Tensor:
        return torch.bmm(x_THa.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)


class TiledHeadLinear:
    """The same in zero-filled tiles of 16 rows, so that a row's bits do not depend on the batch."""

    def prepare(self, weight_Hba: torch.Tensor) -> Packed:
        return torch.stack([fill_up(matrix) for matrix in weight_Hba]), weight_Hba.shape[1]

    def __call__(self, x_THa: torch.Tensor, weight: Packed) -> torch.Tensor:
        filled_Hba, width = weight
        num_tokens, num_heads, width_in = x_THa.shape
        num_tiles = max(1, -(-num_tokens // TILE_ROWS))
        rows = x_THa.new_zeros(num_tiles * TILE_ROWS, num_heads, filled_Hba.shape[2])
        rows[:num_tokens, :, :width_in] = x_THa
        tiles_NHRa = rows.view(num_tiles, TILE_ROWS, *rows.shape[1:]).transpose(1, 2).contiguous()
        filled_Hab = filled_Hba.transpose(1, 2)
        y_NHRb = torch.stack([torch.bmm(tile, filled_Hab) for tile in tiles_NHRa.unbind()])
        return y_NHRb.transpose(1, 2).flatten(0, 1)[:num_tokens, :, :width]
