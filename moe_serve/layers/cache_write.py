"""Writes to the paged cache.

Shape legend: T tokens, P pages, S page size.
"""

import torch


def write_finite(pages_PS: torch.Tensor, slot_T: torch.Tensor, rows_T: torch.Tensor) -> None:
    """Put each token's row into its slot, never an infinity or a NaN.

    A page's next owner masks what is left in it by a weight of zero, and zero times NaN is NaN:
    one sequence that overflows must not spoil another.
    """
    pages_PS.flatten(0, 1).index_copy_(0, slot_T, rows_T.nan_to_num())
