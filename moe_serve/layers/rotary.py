"""Rotary position embedding: a table of cosines and sines, looked up once per step.

Shape legend: T tokens, H heads, r rotary width, L positions, x head width (x >= r).
"""

from dataclasses import dataclass

import torch

from moe_serve.layers.rotary_frequencies import RotaryShape, frequencies


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far each token of a step is turned; shared by all layers."""

    cos_T1r: torch.Tensor
    sin_T1r: torch.Tensor
    interleaved: bool

    def __call__(self, x_THx: torch.Tensor) -> torch.Tensor:
        """Turn the first r numbers of each head; where r < x this is done in place."""
        width = self.cos_T1r.shape[-1]
        part = x_THx[..., :width]
        # Never one fused operation: it may round by where in a vector a number falls.
        turned = (part * self.cos_T1r).add_(self._partners(part).mul_(self.sin_T1r))
        if width == x_THx.shape[-1]:
            return turned
        part.copy_(turned)
        return x_THx

    def _partners(self, x_THr: torch.Tensor) -> torch.Tensor:
        """The other number of each number's pair."""
        if self.interleaved:
            return torch.stack((x_THr[..., 1::2], x_THr[..., 0::2]), -1).flatten(-2)
        first, second = x_THr.chunk(2, -1)
        return torch.cat((second, first), -1)


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """Cosines and signed sines of every position, so that they depend on nothing else."""

    table_L2r: torch.Tensor
    interleaved: bool

    def at(self, position_T: torch.Tensor) -> Rotation:
        rows_T2r = self.table_L2r.index_select(0, position_T)
        return Rotation(rows_T2r[:, 0:1], rows_T2r[:, 1:2], self.interleaved)


def rotary_table(shape: RotaryShape, dtype: torch.dtype, device: torch.device) -> RotaryTable:
    """Computed in float32, kept in `dtype`."""
    radians_per_position, scale = frequencies(shape)
    positions = torch.arange(shape.context_length, dtype=torch.float32)
    angles = torch.outer(positions, radians_per_position)
    cos, sin = angles.cos() * scale, angles.sin() * scale
    if shape.interleaved:
        cos, sin = cos.repeat_interleave(2, -1), torch.stack((-sin, sin), -1).flatten(-2)
    else:
        cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    table_L2r = torch.stack((cos, sin), 1).to(device=device, dtype=dtype)
    return RotaryTable(table_L2r, shape.interleaved)
