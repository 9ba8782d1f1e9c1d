"""The gated activation of SwiGLU (Shazeer 2020, arXiv:2002.05202), in plain torch.

Shape legend: T tokens, F expert width.
"""

import torch
from torch.nn import functional


class ReferenceSwiGlu:
    def __call__(self, gate_up_T2F: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up_T2F.chunk(2, dim=-1)
        return functional.silu(gate) * up


class StableSwiGlu:
    """The same with a sigmoid whose bits do not depend on where in a vector a number falls.

    torch's CPU sigmoid and silu differ in the last bit between their vector loop and its tail;
    its exp, and an exact division, do not. Below float32 the arithmetic is done in float32.
    """

    def __call__(self, gate_up_T2F: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up_T2F.float().chunk(2, dim=-1)
        denominator = torch.exp(-gate).add_(1)
        return (gate / denominator).to(gate_up_T2F.dtype) * up.to(gate_up_T2F.dtype)
