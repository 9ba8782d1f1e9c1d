"""SwiGLU experts by packed products, one expert with rows after the other.

Shape legend: see `moe_kernels/ops.py`; here R also counts rows of zeros that fill up experts with
fewer rows than a product likes.
"""

from collections.abc import Sequence

import torch

from moe_kernels.cpu.products import Product
from moe_kernels.gathered import gather_pairs
from moe_kernels.ops import Packed
from moe_kernels.swiglu import ReferenceSwiGlu


class PackedExperts:
    """Only the packed weights are kept."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._swiglu = ReferenceSwiGlu()

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
        filled_E = counts_E.clamp(min=self._product.min_rows).where(counts_E > 0, 0)
        alone = self._product.quick_alone and int(counts_E.max()) == 1
        if alone or torch.equal(filled_E, counts_E):
            return self._compute(rows_RD, counts_E, weights)
        place_R = places(counts_E, filled_E)
        filled_RD = rows_RD.new_zeros(int(filled_E.sum()), rows_RD.shape[1])
        filled_RD[place_R] = rows_RD
        return self._compute(filled_RD, filled_E, weights)[place_R]

    def _compute(
        self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: Packed
    ) -> torch.Tensor:
        gate_up, down = weights
        counts = counts_E.tolist()
        hidden_RF = self._swiglu(self._each(rows_RD, counts, gate_up))
        return self._each(hidden_RF, counts, down)

    def _each(
        self, rows_RD: torch.Tensor, counts: list[int], weights: tuple[Packed, ...]
    ) -> torch.Tensor:
        parts = zip(torch.split(rows_RD, counts), counts, weights, strict=True)
        return torch.cat([self._product(rows, packed) for rows, count, packed in parts if count])


def places(counts_E: torch.Tensor, filled_E: torch.Tensor) -> torch.Tensor:
    """Where each row goes when every expert's rows are filled up -> int64 [R]."""
    shift_E = (filled_E - counts_E).cumsum(0) - (filled_E - counts_E)
    shift_R = torch.repeat_interleave(shift_E, counts_E)
    return torch.arange(shift_R.shape[0]) + shift_R
