"""Writes to the paged cache.

Shape legend: T tokens, P pages, S page size.
"""

import torch


def write_finite(pages_PS: torch.Tensor, slot_T: torch.Tensor, rows_T: torch.Tensor) -> None:
    """Put each token's row into its slot, with zeros for infinities and NaNs.

    Others mask what they read beyond their own tokens, but zero times NaN is NaN, and so is a score
    beyond all numbers with a mask added: one sequence that overflows must not spoil another.
    """
    finite_T = rows_T.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    pages_PS.flatten(0, 1).index_copy_(0, slot_T, finite_T)
