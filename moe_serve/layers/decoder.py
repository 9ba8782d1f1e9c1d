"""The pre-norm decoder layer that all families share, whatever their attention and feed-forward."""

from dataclasses import dataclass
from typing import Protocol

import torch

from moe_serve.layers.context import ForwardContext
from moe_serve.layers.mlp import FeedForward
from moe_serve.layers.norm import RmsNormLayer
from moe_serve.layers.rotary import Rotation


class AttentionLayer(Protocol):
    def __call__(
        self, x_TD: torch.Tensor, rotation: Rotation, context: ForwardContext
    ) -> torch.Tensor: ...


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
