"""A decoder-only language model: embed, decode layer by layer, predict.

Shape legend: T tokens, D width, S sampled tokens, V vocabulary.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from moe_serve.layers.context import CacheSpec, ForwardContext
from moe_serve.layers.decoder import AttentionLayer, DecoderLayer
from moe_serve.layers.linear import LinearLayer
from moe_serve.layers.mlp import FeedForward
from moe_serve.layers.norm import RmsNormLayer
from moe_serve.layers.rotary import RotaryTable, rotary_table
from moe_serve.layers.rotary_frequencies import RotaryShape
from moe_serve.models.settings import Settings
from moe_serve.models.shape import ModelShape
from moe_serve.weights.loader import WeightLoader


class Family(Protocol):
    """One architecture with one config.json: its shape, and how each layer is made."""

    settings: Settings
    shape: ModelShape
    rotary: RotaryShape

    def attention(self, loader: WeightLoader, layer: int) -> AttentionLayer: ...

    def feed_forward(self, loader: WeightLoader, layer: int) -> FeedForward: ...


@dataclass(frozen=True, slots=True)
class Model:
    shape: ModelShape
    embedding_VD: torch.Tensor
    rotary: RotaryTable
    layers: tuple[DecoderLayer, ...]
    norm: RmsNormLayer
    head: LinearLayer

    def __call__(self, context: ForwardContext) -> torch.Tensor:
        """-> logits_SV, float32, of the rows that the context samples."""
        x_TD = self.embedding_VD.index_select(0, context.token_ids_T)
        rotation = self.rotary.at(context.position_T)
        for layer in self.layers:
            x_TD = layer(x_TD, rotation, context)
        sampled_SD = self.norm(x_TD.index_select(0, context.sample_S))
        return self.head(sampled_SD).float()

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        return self.shape.cache_specs

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size


def build(family: Family, loader: WeightLoader) -> Model:
    """Read the weights, layer by layer."""
    shape, eps = family.shape, family.settings.number("rms_norm_eps")
    embedding_VD = loader.tensor("model.embed_tokens.weight", [shape.vocab_size, shape.width])

    def norm(name: str) -> RmsNormLayer:
        weight_D = loader.tensor(f"{name}.weight", [shape.width])
        return RmsNormLayer(loader.ops.rms_norm, weight_D, eps)

    def decoder_layer(layer: int) -> DecoderLayer:
        prefix = f"model.layers.{layer}"
        return DecoderLayer(
            norm(f"{prefix}.input_layernorm"),
            family.attention(loader, layer),
            norm(f"{prefix}.post_attention_layernorm"),
            family.feed_forward(loader, layer),
        )

    return Model(
        shape,
        embedding_VD,
        rotary_table(family.rotary, loader.dtype, loader.device),
        tuple(decoder_layer(layer) for layer in range(shape.num_layers)),
        norm("model.norm"),
        _head(family.settings, loader, embedding_VD),
    )


def _head(settings: Settings, loader: WeightLoader, embedding_VD: torch.Tensor) -> LinearLayer:
    if settings.flag("tie_word_embeddings"):
        return LinearLayer(loader.ops.linear, loader.ops.linear.prepare(embedding_VD))
    vocab_size, width = embedding_VD.shape
    return loader.linear("lm_head", width, vocab_size)
