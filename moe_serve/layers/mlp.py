"""The dense feed-forward layer, SwiGLU (Shazeer 2020, arXiv:2002.05202).

Shape legend: T tokens, D width, F hidden width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from moe_comm.ordered_sum import ordered_sum

from moe_serve.layers.context import ForwardContext
from moe_serve.layers.linear import LinearLayer


class FeedForward(Protocol):
    def __call__(self, x_TD: torch.Tensor, context: ForwardContext) -> torch.Tensor: ...


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class DenseMlp:
    """Attributes:
    gate_up: to F gate numbers, then F up numbers; F is this rank's share of the hidden width.
    """

    gate_up: LinearLayer
    down: LinearLayer

    def __call__(self, x_TD: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        return ordered_sum(context.attention, self.part(x_TD, context))

    def part(
        self, x_TD: torch.Tensor, context: ForwardContext, between: Callable[[], None] = _nothing
    ) -> torch.Tensor:
        """What this rank's hidden numbers add to y_TD; `between` is called halfway."""
        hidden_TF = context.ops.swiglu(self.gate_up(x_TD))
        between()
        return self.down(hidden_TF)
