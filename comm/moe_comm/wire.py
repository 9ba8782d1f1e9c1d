"""How a token crosses a link between pools: one packed row, its values in the link's precision.

A row is, in this order and in the byte order of its hosts: for each of the token's experts a slot
(int32, -1 for none) and a weight (float32); for int8 the scale (float32); the values; and up to 3
bytes of padding, so that every row begins at a multiple of 4.

Shape legend: C tokens that cross, K experts chosen per token, D width, B bytes of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

Wire: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]

_DTYPES: dict[Wire, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
_LARGEST_INT8 = 127
_WORD = 4


@dataclass(frozen=True, slots=True)
class CrossingRows:
    """Tokens as they cross.

    Attributes:
        x_CD: their values.
        slot_CK: int32 on the host: slots in the receiving pool, -1 for none.
        weights_CK: float32 on the host.
    """

    x_CD: torch.Tensor
    slot_CK: torch.Tensor
    weights_CK: torch.Tensor

    def split(self, sizes: Sequence[int]) -> list["CrossingRows"]:
        columns = (
            each.split_with_sizes(list(sizes))
            for each in (self.x_CD, self.slot_CK, self.weights_CK)
        )
        return [CrossingRows(*parts) for parts in zip(*columns, strict=True)]

    @staticmethod
    def together(parts: Sequence["CrossingRows"]) -> "CrossingRows":
        if len(parts) == 1:
            return parts[0]
        return CrossingRows(
            torch.cat([part.x_CD for part in parts]),
            torch.cat([part.slot_CK for part in parts]),
            torch.cat([part.weights_CK for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class RowFormat:
    """The rows of one exchange over one link.

    Attributes:
        wire: float16 takes values beyond 65504 to infinity; int8 is symmetric, each row's largest
            magnitude is 127.
    """

    wire: Wire
    width: int
    num_chosen: int

    @property
    def num_bytes(self) -> int:
        num_bytes = self._values + self.width * _DTYPES[self.wire].itemsize
        return -(-num_bytes // _WORD) * _WORD

    def pack(self, rows: CrossingRows) -> torch.Tensor:
        """-> rows_CB: uint8 on the host, in pinned memory where they come from an accelerator."""
        x_CD = rows.x_CD
        shape = (len(x_CD), self.num_bytes)
        packed_CB = torch.empty(shape, dtype=torch.uint8, pin_memory=not x_CD.is_cpu)
        self._words(packed_CB, 0, torch.int32).copy_(rows.slot_CK)
        self._words(packed_CB, self.num_chosen, torch.float32).copy_(rows.weights_CK)
        values_CD = self._values_of(packed_CB)
        if self.wire == "int8":
            x_CD, scale_C1 = quantize(x_CD)
            self._scale(packed_CB).copy_(scale_C1)
        values_CD.copy_(x_CD)
        return packed_CB

    def unpack(
        self, packed: torch.Tensor, dtype: torch.dtype, device: torch.device
    ) -> CrossingRows:
        """
        Args:
            packed: uint8 on the host, of any number of whole rows.
            dtype, device: of the values.
        """
        packed_CB = packed.view(packed.numel() // self.num_bytes, self.num_bytes)
        x_CD = self._values_of(packed_CB).to(device)
        if self.wire == "int8":
            x_CD = x_CD.float() * self._scale(packed_CB).to(device)
        slot_CK = self._words(packed_CB, 0, torch.int32)
        weights_CK = self._words(packed_CB, self.num_chosen, torch.float32)
        return CrossingRows(x_CD.to(dtype), slot_CK, weights_CK)

    @property
    def _values(self) -> int:
        return _WORD * (2 * self.num_chosen + (self.wire == "int8"))

    def _values_of(self, packed_CB: torch.Tensor) -> torch.Tensor:
        dtype = _DTYPES[self.wire]
        end = self._values + self.width * dtype.itemsize
        return packed_CB[:, self._values : end].view(dtype)

    def _scale(self, packed_CB: torch.Tensor) -> torch.Tensor:
        return packed_CB[:, self._values - _WORD : self._values].view(torch.float32)

    def _words(self, packed_CB: torch.Tensor, first: int, dtype: torch.dtype) -> torch.Tensor:
        return packed_CB[:, _WORD * first : _WORD * (first + self.num_chosen)].view(dtype)


def quantize(x_CD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """-> int8 values_CD and float32 scale_C1: symmetric, by the largest magnitude of each row.

    A value is off by at most half a scale. A row with a value that is not finite comes back as
    infinities and NaNs, so that a fault stays visible.
    """
    x_CD = x_CD.float()
    scale_C1 = x_CD.abs().amax(1, keepdim=True) / _LARGEST_INT8
    divisor_C1 = torch.where(scale_C1 == 0, 1.0, scale_C1)
    values_CD = (x_CD / divisor_C1).round_().clamp_(-_LARGEST_INT8, _LARGEST_INT8)
    return values_CD.to(torch.int8), scale_C1


def on_host(rows_RD: torch.Tensor) -> torch.Tensor:
    """The rows on the host: themselves, or a copy in pinned memory, from an accelerator."""
    if rows_RD.is_cpu:
        return rows_RD
    host_RD = torch.empty(rows_RD.shape, dtype=rows_RD.dtype, pin_memory=True)
    return host_RD.copy_(rows_RD)
