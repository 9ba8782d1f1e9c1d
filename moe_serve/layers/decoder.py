"""The pre-norm decoder layer that all families share, whatever their attention and feed-forward.

Ranks of an attention group each hold a part of both: outputs of their first products, inputs of
the last one, so that each ends in one sum (Megatron-LM, Shoeybi et al. 2019, arXiv:1909.08053).
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from moe_serve.layers.context import CacheSpec, ForwardContext
from moe_serve.layers.mlp import FeedForward
from moe_serve.layers.norm import RmsNormLayer
from moe_serve.layers.rotary import Rotation


class AttentionLayer(Protocol):
    @property
    def cache_spec(self) -> CacheSpec:
        """Of this rank's heads."""
        ...

    def __call__(
        self, x_TD: torch.Tensor, rotation: Rotation, context: ForwardContext
    ) -> torch.Tensor:
        """-> y_TD of all ranks' heads."""
        ...


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    attention_norm: RmsNormLayer
    attention: AttentionLayer
    feed_forward_norm: RmsNormLayer
    feed_forward: FeedForward

    def __call__(
        self, x_TD: torch.Tensor, rotation: Rotation, context: ForwardContext
    ) -> torch.Tensor:
        x_TD = x_TD + self.attention(self.attention_norm(x_TD), rotation, context)
        return x_TD + self.feed_forward(self.feed_forward_norm(x_TD), context)
