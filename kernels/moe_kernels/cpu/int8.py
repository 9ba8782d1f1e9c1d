"""int8 weights on processors with VNNI: oneDNN's products of whole numbers.

Half of bfloat16's bytes are read. Activations are not rounded to eight bits: see `digits.py`.

Shape legend: see `moe_kernels/ops.py`; G digits of all rows (2R).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from moe_kernels.cpu.digits import ZERO, from_digits, to_digits
from moe_kernels.cpu.products import EXPECTED_ROWS, onednn_has_float32
from moe_kernels.gathered import gather_pairs
from moe_kernels.ops import Packed
from moe_kernels.quantise import quantise
from moe_kernels.swiglu import StableSwiGlu

# Sums of products of bytes stay below 2^31 up to here.
_WIDEST = (1 << 31) // (255 * 128)
# Those of a single row are read more slowly than those of two.
_LEAST_DIGITS = 4


@dataclass(frozen=True, slots=True)
class PackedInt8:
    """Attributes:
    values: in oneDNN's layout, which adds four bytes to each output row.
    """

    values: torch.Tensor
    scale_N: torch.Tensor


class Int8Product:
    """digits_GD @ weight_ND.T in float32, of a weight packed once."""

    def __init__(self) -> None:
        self._zero = torch.zeros(1, dtype=torch.int64)

    def pack(self, weight_ND: torch.Tensor) -> PackedInt8:
        width = weight_ND.shape[1]
        if width > _WIDEST:
            raise ValueError(
                f"an int8 weight with {width} columns is not served; at most {_WIDEST} are"
            )
        rounded = quantise(weight_ND)
        values = torch.ops.onednn.qlinear_prepack(rounded.values_ND, [EXPECTED_ROWS, width])
        return PackedInt8(values, rounded.scale_N)

    def __call__(self, digits_GD: torch.Tensor, weight: PackedInt8) -> torch.Tensor:
        missing = _LEAST_DIGITS - len(digits_GD)
        if missing > 0:
            digits_GD = functional.pad(digits_GD, (0, 0, 0, missing))
        y_GN: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            *(digits_GD, 1.0, ZERO),
            *(weight.values, weight.scale_N, self._zero),
            *(None, 1.0, 0, torch.float32),
            *("none", [], ""),
        )
        return y_GN[:-missing] if missing > 0 else y_GN


class Int8Linear:
    """y = x W^T + b; a row's bits depend on that row alone."""

    def __init__(self) -> None:
        self._product = Int8Product()

    def prepare(self, weight_ND: torch.Tensor) -> Packed:
        return self._product.pack(weight_ND)

    def __call__(
        self, x_TD: torch.Tensor, weight: Packed, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        if x_TD.shape[0] == 0:
            return x_TD.new_empty(0, len(weight.scale_N))
        digits_GD, unit_T1 = to_digits(x_TD)
        y_TN = from_digits(self._product(digits_GD, weight), unit_T1).to(x_TD.dtype)
        return y_TN if bias_N is None else y_TN.add_(bias_N)


class Int8Experts:
    """SwiGLU experts; a row's bits depend on that row alone."""

    def __init__(self) -> None:
        self._product = Int8Product()
        self._swiglu = StableSwiGlu()

    def prepare(self, gate_up_E2FD: torch.Tensor, down_EDF: torch.Tensor) -> Packed:
        pack = self._product.pack
        return tuple(map(pack, gate_up_E2FD)), tuple(map(pack, down_EDF))

    def gather(self, sources: Sequence[tuple[Packed, int]]) -> Packed:
        return gather_pairs(sources)

    def __call__(
        self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: Packed
    ) -> torch.Tensor:
        if rows_RD.shape[0] == 0:
            return torch.empty_like(rows_RD)
        gate_up, down = weights
        counts = counts_E.tolist()
        hidden_RF = self._swiglu(self._each(rows_RD, counts, gate_up))
        return self._each(hidden_RF, counts, down).to(rows_RD.dtype)

    def _each(
        self, rows_RD: torch.Tensor, counts: list[int], weights: tuple[PackedInt8, ...]
    ) -> torch.Tensor:
        digits_GD, unit_R1 = to_digits(rows_RD)
        parts = zip(torch.split(digits_GD, [2 * count for count in counts]), weights, strict=True)
        products = [self._product(digits, weight) for digits, weight in parts if len(digits)]
        return from_digits(torch.cat(products), unit_R1)


def has_vnni() -> bool:
    """Without it oneDNN adds pairs of products in 16 bits, and cuts off what is too large."""
    return (
        onednn_has_float32()
        and hasattr(torch.ops.onednn, "qlinear_prepack")
        and bool(torch.cpu._is_vnni_supported())
    )
