"""Weights bound to the kernel that runs them: matrix products, and a rank's experts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from moe_kernels.ops import Experts, Linear, Packed


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """One matrix product with its packed weight."""

    op: Linear
    packed: Packed
    bias: torch.Tensor | None = None

    def __call__(self, x_TD: torch.Tensor) -> torch.Tensor:
        """x_TD -> y_TN."""
        return self.op(x_TD, self.packed, self.bias)


@dataclass(slots=True)
class ExpertsLayer:
    """The experts that this rank holds of one layer, in slot order."""

    op: Experts
    packed: Packed

    def replace(self, sources: Sequence[tuple[Packed, int]]) -> None:
        """Hold other experts from now on: of those here and of others that were prepared for the
        same op, each named by where it is packed and by its place there."""
        self.packed = self.op.gather(sources) if sources else None

    def __call__(self, rows_RD: torch.Tensor, counts_E: torch.Tensor) -> torch.Tensor:
        """Rows sorted by slot, and how many each has -> y_RD."""
        if counts_E.numel() == 0:
            return rows_RD
        return self.op(rows_RD, counts_E, self.packed)
