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
from moe_serve.layers.vocabulary import Embedding, Head
from moe_serve.models.settings import Settings
from moe_serve.models.shape import ModelShape
from moe_serve.weights.loader import WeightLoader

EMBEDDING = "model.embed_tokens.weight"
LAST_NORM = "model.norm"
_HEAD = "lm_head"


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
    embedding: Embedding
    rotary: RotaryTable
    layers: tuple[DecoderLayer, ...]
    norm: RmsNormLayer
    head: Head

    def __call__(self, context: ForwardContext) -> torch.Tensor:
        """-> logits_SV, float32, of the rows that the context samples."""
        x_TD = self.embedding(context)
        rotation = self.rotary.at(context.position_T)
        for index, layer in enumerate(self.layers):
            x_TD = layer(x_TD, rotation, context)
            context.after_layer(index)
        sampled_SD = self.norm(x_TD.index_select(0, context.sample_S))
        return self.head(sampled_SD, context)

    @property
    def cache_specs(self) -> tuple[CacheSpec, ...]:
        """By layer; of this rank's heads."""
        return tuple(layer.attention.cache_spec for layer in self.layers)

    @property
    def vocab_size(self) -> int:
        return self.shape.vocab_size


def build(family: Family, loader: WeightLoader) -> Model:
    """Read the weights, layer by layer."""
    shape = family.shape
    embedding = _embedding(loader, shape)
    return Model(
        shape,
        embedding,
        rotary_table(family.rotary, loader.dtype, loader.device),
        tuple(decoder_layer(family, loader, layer) for layer in range(shape.num_layers)),
        norm(family, loader, LAST_NORM),
        _head(family, loader, embedding),
    )


def decoder_layer(family: Family, loader: WeightLoader, layer: int) -> DecoderLayer:
    """One layer with its weights."""
    prefix = f"model.layers.{layer}"
    return DecoderLayer(
        norm(family, loader, f"{prefix}.input_layernorm"),
        family.attention(loader, layer),
        norm(family, loader, f"{prefix}.post_attention_layernorm"),
        family.feed_forward(loader, layer),
    )


def norm(family: Family, loader: WeightLoader, name: str) -> RmsNormLayer:
    """One of the norms between layers."""
    weight_D = loader.tensor(f"{name}.weight", [family.shape.width])
    eps = family.settings.number("rms_norm_eps")
    return RmsNormLayer(loader.ops.rms_norm, weight_D, eps)


def head_name(family: Family) -> str:
    """The tensor, a row for each token of the vocabulary, that predicts the next one."""
    return EMBEDDING if family.settings.flag("tie_word_embeddings") else f"{_HEAD}.weight"


def _embedding(loader: WeightLoader, shape: ModelShape) -> Embedding:
    rows = loader.shard.of(shape.vocab_size)
    whole = [shape.vocab_size, shape.width]
    return Embedding(loader.tensor(EMBEDDING, whole, rows=rows), rows.start)


def _head(family: Family, loader: WeightLoader, embedding: Embedding) -> Head:
    vocab_size, width = family.shape.vocab_size, family.shape.width
    if head_name(family) == EMBEDDING:
        op = loader.ops.plain_linear
        product = LinearLayer(op, op.prepare(embedding.rows_vD))
    else:
        rows = loader.shard.of(vocab_size)
        product = loader.linear(_HEAD, width, vocab_size, rows=[rows], plain=True)
    return Head(product, vocab_size)
