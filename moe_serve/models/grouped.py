"""Grouped-query attention of the Llama line, as checkpoints name and shape it."""

from dataclasses import dataclass, replace

import torch

from moe_serve.config.heads import check_heads
from moe_serve.errors import UnsupportedError
from moe_serve.layers.attention import GroupedAttention, HeadNorm
from moe_serve.layers.context import GroupedCacheSpec
from moe_serve.layers.norm import RmsNormLayer
from moe_serve.models.settings import Settings
from moe_serve.weights.loader import WeightLoader


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedShape:
    """Attributes:
    bias: of queries, keys and values; output_bias: of the projection back.
    head_norm: queries and keys are normalised head by head.
    """

    width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    norm_eps: float
    bias: bool = False
    output_bias: bool = False
    head_norm: bool = False

    @property
    def cache_spec(self) -> GroupedCacheSpec:
        return GroupedCacheSpec(self.num_kv_heads, self.head_width)


def read_grouped(
    settings: Settings, *, bias: bool = False, output_bias: bool = False, head_norm: bool = False
) -> GroupedShape:
    """Raises UnsupportedError where attention is limited to a window of the context."""
    num_heads = settings.integer("num_attention_heads")
    width = settings.integer("hidden_size")
    _refuse_window(settings)
    return GroupedShape(
        width=width,
        num_heads=num_heads,
        num_kv_heads=settings.integer("num_key_value_heads", default=num_heads),
        head_width=settings.integer("head_dim", default=width // num_heads),
        norm_eps=settings.number("rms_norm_eps"),
        bias=bias,
        output_bias=output_bias,
        head_norm=head_norm,
    )


def grouped_attention(loader: WeightLoader, layer: int, shape: GroupedShape) -> GroupedAttention:
    """With the heads of the loader's shard.

    Raises:
        UnsupportedError: the heads do not come out even.
    """
    shard = loader.shard
    check_heads(shard.count, shape.num_heads, shape.num_kv_heads)
    own = replace(
        shape,
        num_heads=shape.num_heads // shard.count,
        num_kv_heads=max(1, shape.num_kv_heads // shard.count),
    )
    prefix = f"model.layers.{layer}.self_attn"
    q_width = shape.num_heads * shape.head_width
    kv_width = shape.num_kv_heads * shape.head_width
    first_kv_head = shape.num_kv_heads * shard.index // shard.count
    first_row = first_kv_head * shape.head_width
    kv_rows = slice(first_row, first_row + own.num_kv_heads * shape.head_width)
    return GroupedAttention(
        layer,
        own.num_heads,
        own.num_kv_heads,
        shape.head_width,
        qkv=loader.linear(
            [f"{prefix}.{name}_proj" for name in "qkv"],
            shape.width,
            [q_width, kv_width, kv_width],
            bias=shape.bias,
            rows=[shard.of(q_width), kv_rows, kv_rows],
        ),
        output=loader.linear_part(f"{prefix}.o_proj", q_width, shape.width, bias=shape.output_bias),
        head_norm=_head_norm(loader, prefix, own) if shape.head_norm else None,
    )


def _head_norm(loader: WeightLoader, prefix: str, shape: GroupedShape) -> HeadNorm:
    q_d = loader.tensor(f"{prefix}.q_norm.weight", [shape.head_width])
    k_d = loader.tensor(f"{prefix}.k_norm.weight", [shape.head_width])
    scale_Hd = torch.cat((q_d.expand(shape.num_heads, -1), k_d.expand(shape.num_kv_heads, -1)))
    norm = RmsNormLayer(loader.ops.rms_norm, torch.ones_like(q_d), shape.norm_eps)
    return HeadNorm(norm, scale_Hd)


def _refuse_window(settings: Settings) -> None:
    """`use_sliding_window`, where a config has it, says whether `sliding_window` counts."""
    window = settings.optional_integer("sliding_window")
    context_length = settings.integer("max_position_embeddings")
    if window is None or window >= context_length or not settings.flag("use_sliding_window", True):
        return
    raise UnsupportedError(
        f"{settings.architecture} with sliding_window={window} below its context of "
        f"{context_length} tokens is not supported; only full attention is"
    )
