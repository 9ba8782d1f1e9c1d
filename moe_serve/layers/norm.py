"""Root mean square layer normalisation with its weight."""

from dataclasses import dataclass

import torch
from moe_kernels.ops import RmsNorm


@dataclass(frozen=True, slots=True)
class RmsNormLayer:
    """Over the last dimension; the op computes in float32."""

    op: RmsNorm
    weight_D: torch.Tensor
    eps: float

    def __call__(self, x_TD: torch.Tensor) -> torch.Tensor:
        return self.op(x_TD, self.weight_D, self.eps)
