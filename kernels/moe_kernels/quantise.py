"""Weights rounded to int8, with one float32 scale for each output row (symmetric, absmax).

Shape legend: N output rows, D columns.
"""

from dataclasses import dataclass

import torch

LARGEST = 127
# A row of zeros has this scale times LARGEST as its largest number, so that no scale is 0.
_LEAST = 1e-30
# Rows are rounded so many at a time, to bound what float32 copies take.
_BLOCK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """values_ND (int8) times scale_N (float32), row by row."""

    values_ND: torch.Tensor
    scale_N: torch.Tensor

    def numbers(self) -> torch.Tensor:
        """-> float32 [N, D]."""
        return self.values_ND.float().mul_(self.scale_N.unsqueeze(1))


def quantise(weight_ND: torch.Tensor) -> Int8Matrix:
    """Round a matrix of any float dtype; the largest number of each row becomes +-127."""
    values_ND = torch.empty(weight_ND.shape, dtype=torch.int8, device=weight_ND.device)
    scale_N = torch.empty(len(weight_ND), device=weight_ND.device)
    blocks = (torch.split(part, _BLOCK_ROWS) for part in (weight_ND, values_ND, scale_N))
    for numbers, values, scale in zip(*blocks, strict=True):
        largest = numbers.abs().amax(1).float().clamp_(min=_LEAST)
        torch.div(largest, LARGEST, out=scale)
        values.copy_(torch.div(numbers, scale.unsqueeze(1)).round_())
    return Int8Matrix(values_ND, scale_N)
