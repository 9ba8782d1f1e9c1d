"""Linear layers by packed products.

Shape legend: see `moe_kernels/ops.py`.
"""

import torch
from torch.nn import functional

from moe_kernels.cpu.products import Product
from moe_kernels.ops import Packed


class PackedLinear:
    """y = x W^T + b; only the packed weight is kept."""

    def __init__(self, product: Product) -> None:
        self._product = product

    def prepare(self, weight_ND: torch.Tensor) -> Packed:
        return weight_ND.shape[0], self._product.pack(weight_ND)

    def __call__(
        self, x_TD: torch.Tensor, weight: Packed, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        width, packed = weight
        num_rows = x_TD.shape[0]
        if num_rows == 0:
            return x_TD.new_empty(0, width)
        missing = self._product.min_rows - num_rows
        if missing > 0:
            x_TD = functional.pad(x_TD, (0, 0, 0, missing))
        y_TN = self._product(x_TD, packed)[:num_rows]
        return y_TN if bias_N is None else y_TN.add_(bias_N)
