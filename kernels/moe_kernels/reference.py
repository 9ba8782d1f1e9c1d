"""The oracle: every op in plain torch, for any device, written to be read.

Shape legend: see `ops.py`.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from moe_kernels.ops import Packed
from moe_kernels.swiglu import ReferenceSwiGlu


class ReferenceLinear:
    """y = x W^T + b; the packed weight is the weight."""

    def prepare(self, weight_ND: torch.Tensor) -> Packed:
        return weight_ND

    def __call__(
        self, x_TD: torch.Tensor, weight: Packed, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = x_TD.to(weight.dtype)
        bias = None if bias_N is None else bias_N.to(weight.dtype)
        return functional.linear(x, weight, bias).to(x_TD.dtype)


class ReferenceExperts:
    """SwiGLU experts (Shazeer 2020, arXiv:2002.05202), one after the other."""

    def __init__(self) -> None:
        self._swiglu = ReferenceSwiGlu()

    def prepare(self, gate_up_E2FD: torch.Tensor, down_EDF: torch.Tensor) -> Packed:
        return gate_up_E2FD, down_EDF

    def gather(self, sources: Sequence[tuple[Packed, int]]) -> Packed:
        gate_up_E2FD = torch.stack([packed[0][place] for packed, place in sources])
        return gate_up_E2FD, torch.stack([packed[1][place] for packed, place in sources])

    def __call__(
        self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: Packed
    ) -> torch.Tensor:
        gate_up_E2FD, down_EDF = weights
        y_RD = torch.empty_like(rows_RD)
        start = 0
        for expert, count in enumerate(counts_E.tolist()):
            if count:
                rows = slice(start, start + count)
                x = rows_RD[rows].to(gate_up_E2FD.dtype)
                hidden = self._swiglu(functional.linear(x, gate_up_E2FD[expert]))
                y_RD[rows] = functional.linear(hidden, down_EDF[expert])
            start += count
        return y_RD


class ReferenceRmsNorm:
    """Root mean square layer normalisation (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __call__(self, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        x = x_TD.float()
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        return weight_D * x.to(x_TD.dtype)
