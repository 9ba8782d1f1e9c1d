"""Matrix products with a weight packed once: oneDNN's own layout, or FBGEMM's for float16.

With 1 to 32 rows a product by a plain weight reads memory 1.4 to 2.8 times more slowly.

Shape legend: see `moe_kernels/ops.py`.
"""

from typing import Protocol

import torch
from torch.nn import functional

from moe_kernels.ops import Packed

# The layout that is good for many rows is, above three rows, also the best for few.
EXPECTED_ROWS = 32
# oneDNN compiles a product for every other number of rows and keeps it, half a megabyte each.
# Above EXPECTED_ROWS it therefore meets multiples alone: of 8, and of about a 32nd of many rows.
_LEAST_BLOCK, _MOST_BLOCK = 8, 32


class Product(Protocol):
    """How one weight is packed and multiplied.

    Attributes:
        min_rows: fewer rows than this are slower than as many.
        quick_alone: not so where every expert of a step has a single row.
    """

    min_rows: int
    quick_alone: bool

    def pack(self, weight_ND: torch.Tensor) -> Packed: ...

    def __call__(self, x_TD: torch.Tensor, packed: Packed) -> torch.Tensor:
        """x_TD @ weight_ND.T in x's dtype; T is not 0."""
        ...


class OneDnnProduct:
    """float32 and bfloat16 weights in oneDNN's blocked layout."""

    min_rows = 4

    def __init__(self, quick_alone: bool) -> None:
        self.quick_alone = quick_alone

    def pack(self, weight_ND: torch.Tensor) -> Packed:
        weight = weight_ND.detach().contiguous()
        return weight.dtype, torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)

    def __call__(self, x_TD: torch.Tensor, packed: Packed) -> torch.Tensor:
        dtype, weight = packed
        num_rows = x_TD.shape[0]
        x = _whole_blocks(x_TD.to(dtype).contiguous())
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return y[:num_rows].to(x_TD.dtype)


class FbgemmHalfProduct:
    """float16 weights, multiplied in float32, for processors without float16 arithmetic.

    A wider weight among them, such as a router's, is not rounded: it stays plain.
    """

    min_rows = 1
    quick_alone = True

    def pack(self, weight_ND: torch.Tensor) -> Packed:
        if weight_ND.dtype != torch.float16:
            return weight_ND
        return torch.ops.quantized.linear_prepack_fp16(weight_ND.detach().float(), None)

    def __call__(self, x_TD: torch.Tensor, packed: Packed) -> torch.Tensor:
        if isinstance(packed, torch.Tensor):
            return functional.linear(x_TD.to(packed.dtype), packed).to(x_TD.dtype)
        y: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x_TD.float(), packed)
        return y.to(x_TD.dtype)


def _whole_blocks(x_TD: torch.Tensor) -> torch.Tensor:
    """With rows of zeros where there are many rows, but no whole blocks."""
    num_rows = x_TD.shape[0]
    block = min(max(_LEAST_BLOCK, 1 << (num_rows // 32).bit_length()), _MOST_BLOCK)
    num_more = -num_rows % block if num_rows > EXPECTED_ROWS else 0
    return functional.pad(x_TD, (0, 0, 0, num_more)) if num_more else x_TD


def onednn_has_float32() -> bool:
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def onednn_has_bfloat16() -> bool:
    return onednn_has_float32() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fbgemm_has_float16() -> bool:
    return torch.backends.quantized.engine in ("fbgemm", "x86")
