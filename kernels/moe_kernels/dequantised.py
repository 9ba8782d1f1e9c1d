"""int8 weights in plain torch, for any device: multiplied out in float32 at each use.

Slow, and right: the oracle of the kernels that compute with the integers.

Shape legend: see `ops.py`.
"""

from collections.abc import Sequence

import torch

from moe_kernels.gathered import gather_pairs
from moe_kernels.ops import Experts, Linear, Packed
from moe_kernels.quantise import Int8Matrix, quantise


class DequantisedLinear:
    """A float32 op over weights that are kept in int8."""

    def __init__(self, op: Linear) -> None:
        self._op = op

    def prepare(self, weight_ND: torch.Tensor) -> Packed:
        return quantise(weight_ND)

    def __call__(
        self, x_TD: torch.Tensor, weight: Packed, bias_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        bias = None if bias_N is None else bias_N.float()
        return self._op(x_TD.float(), self._op.prepare(weight.numbers()), bias).to(x_TD.dtype)


class DequantisedExperts:
    """A float32 op over experts that are kept in int8; one at a time is multiplied out."""

    def __init__(self, op: Experts) -> None:
        self._op = op

    def prepare(self, gate_up_E2FD: torch.Tensor, down_EDF: torch.Tensor) -> Packed:
        return tuple(map(quantise, gate_up_E2FD)), tuple(map(quantise, down_EDF))

    def gather(self, sources: Sequence[tuple[Packed, int]]) -> Packed:
        return gather_pairs(sources)

    def __call__(
        self, rows_RD: torch.Tensor, counts_E: torch.Tensor, weights: Packed
    ) -> torch.Tensor:
        y_RD = torch.empty_like(rows_RD)
        parts = torch.split(rows_RD, counts_E.tolist())
        answers = torch.split(y_RD, counts_E.tolist())
        for rows, answer, gate_up, down in zip(parts, answers, *weights, strict=True):
            if len(rows):
                answer.copy_(self._expert(rows.float(), gate_up, down))
        return y_RD

    def _expert(self, rows_RD: torch.Tensor, gate_up: Int8Matrix, down: Int8Matrix) -> torch.Tensor:
        numbers = self._op.prepare(gate_up.numbers()[None], down.numbers()[None])
        return self._op(rows_RD, torch.tensor([len(rows_RD)]), numbers)
