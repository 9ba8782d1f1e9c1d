"""Weights kept in a narrower float dtype than the one they come in.

Shape legend: see `ops.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moe_kernels.ops import Experts, Linear, Packed


@dataclass(frozen=True, slots=True)
class NarrowedLinear:
    """Attributes:
    op: takes activations that are wider than its weights.
    dtype: of the weights.
    """

    op: Linear
    dtype: torch.dtype

    def prepare(self, weight_ND: torch.Tensor) -> Packed:
        return self.op.prepare(weight_ND.to(self.dtype))

    def __call__(
        self, x_TD: torch.Tensor, weight: Packed, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        return self.op(x_TD, weight, bias_N)


@dataclass(frozen=True, slots=True)
class NarrowedExperts:
    """The same of experts."""

    op: Experts
    dtype: torch.dtype

    def prepare(self, gate_up_E2FD: torch.Tensor, down_EDF: torch.Tensor) -> Packed:
        return self.op.prepare(gate_up_E2FD.to(self.dtype), down_EDF.to(self.dtype))

    def gather(self, sources: Sequence[tuple[Packed, int]]) -> Packed:
        return self.op.gather(sources)

    def __call__(
        self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: Packed
    ) -> torch.Tensor:
        return self.op(rows_RD, counts_E, weights)
