"""Activations as two signed digits of eight bits each, for products of whole numbers.

A row is scaled so that its largest number is +-32512 = 127 * 256, rounded, and written as
256 high + low. That keeps more than bfloat16 of every number above 1/256 of the row's largest;
one digit alone would lose as much as the weights do. Sums of whole numbers are exact, so no row's
bits depend on the rows beside it.

Shape legend: R rows, D width in, N width out, G digits of all rows (2R).
"""

import torch

WHOLE = 127 * 256
# Digits are unsigned bytes that stand for so much less.
ZERO = 128
# A row of zeros is taken to have this as its largest number.
_LEAST = 1e-30
# In two's complement, so that both bytes of a scaled number come out with ZERO added.
_SHIFT = ZERO - (1 << 15)


def to_digits(x_RD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """-> digits_GD (uint8; each row's low ones, then its high ones), unit_R1 (float32)."""
    x_RD = x_RD.float()
    top_R1 = x_RD.abs().amax(1, keepdim=True).clamp_(min=_LEAST)
    whole_RD = (x_RD * (WHOLE / top_R1)).round_().to(torch.int16).add_(_SHIFT)
    num_rows, width = x_RD.shape
    digits_R2D = torch.empty(num_rows, 2, width, dtype=torch.uint8)
    digits_R2D[:, 0] = whole_RD
    digits_R2D[:, 1] = whole_RD.bitwise_right_shift_(8)
    return digits_R2D.flatten(0, 1), top_R1 / WHOLE


def from_digits(products_GN: torch.Tensor, unit_R1: torch.Tensor) -> torch.Tensor:
    """The rows' products from those of their digits -> float32 [R, N]."""
    low_RN, high_RN = products_GN.view(len(unit_R1), 2, -1).unbind(1)
    return torch.add(low_RN, high_RN, alpha=256).mul_(unit_R1)
