"""Multi-head latent attention, as DeepSeek's checkpoints name and shape it.

Shape legend: H heads, n query width without rotary, l latent width, v value width.
"""

from dataclasses import dataclass

import torch

from moe_serve.config.heads import check_heads
from moe_serve.errors import UnsupportedError
from moe_serve.layers.context import LatentCacheSpec
from moe_serve.layers.latent_attention import HeadLinearLayer, LatentAttention, QueryExpansion
from moe_serve.layers.linear import LinearLayer
from moe_serve.layers.norm import RmsNormLayer
from moe_serve.layers.rotary_frequencies import RotaryShape, yarn_softmax_factor
from moe_serve.models.settings import Settings
from moe_serve.weights.loader import WeightLoader

# DeepSeek's own code gives the norms inside attention this one, whatever rms_norm_eps says.
_INNER_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentShape:
    """Attributes:
    query_rank: width of the compressed query; None projects queries at once.
    plain_width: of a query head without its rotary part.
    """

    width: int
    num_heads: int
    query_rank: int | None
    latent_width: int
    plain_width: int
    rotary_width: int
    value_width: int
    bias: bool

    @property
    def cache_spec(self) -> LatentCacheSpec:
        return LatentCacheSpec(self.latent_width + self.rotary_width)

    @property
    def query_width(self) -> int:
        return self.num_heads * (self.plain_width + self.rotary_width)


def read_latent(settings: Settings) -> LatentShape:
    """Raises UnsupportedError for a bias where queries are not compressed."""
    query_rank = settings.optional_integer("q_lora_rank")
    bias = settings.flag("attention_bias")
    if bias and query_rank is None:
        raise UnsupportedError(
            f"{settings.architecture} with attention_bias and no q_lora_rank is not supported"
        )
    return LatentShape(
        width=settings.integer("hidden_size"),
        num_heads=settings.integer("num_attention_heads"),
        query_rank=query_rank,
        latent_width=settings.integer("kv_lora_rank"),
        plain_width=settings.integer("qk_nope_head_dim"),
        rotary_width=settings.integer("qk_rope_head_dim"),
        value_width=settings.integer("v_head_dim"),
        bias=bias,
    )


def latent_attention(
    loader: WeightLoader, layer: int, shape: LatentShape, rotary: RotaryShape
) -> LatentAttention:
    """With the heads of the loader's shard; what makes the latent is whole."""
    check_heads(loader.shard.count, shape.num_heads)
    prefix = f"model.layers.{layer}.self_attn"
    key_absorbed, value_absorbed = _absorbed(loader, prefix, shape)
    return LatentAttention(
        layer,
        shape.num_heads // loader.shard.count,
        shape.rotary_width,
        shape.latent_width,
        down=_down(loader, prefix, shape),
        expansion=_expansion(loader, prefix, shape),
        latent_norm=_inner_norm(loader, f"{prefix}.kv_a_layernorm", shape.latent_width),
        key_absorbed=key_absorbed,
        value_absorbed=value_absorbed,
        output=loader.linear_part(
            f"{prefix}.o_proj", shape.num_heads * shape.value_width, shape.width, bias=shape.bias
        ),
        scale=(shape.plain_width + shape.rotary_width) ** -0.5 * yarn_softmax_factor(rotary),
    )


def _down(loader: WeightLoader, prefix: str, shape: LatentShape) -> LinearLayer:
    name = "q_proj" if shape.query_rank is None else "q_a_proj"
    query_rows = loader.shard.of(shape.query_width) if shape.query_rank is None else None
    return loader.linear(
        [f"{prefix}.{name}", f"{prefix}.kv_a_proj_with_mqa"],
        shape.width,
        [shape.query_rank or shape.query_width, shape.latent_width + shape.rotary_width],
        bias=shape.bias,
        rows=[query_rows, None],
    )


def _expansion(loader: WeightLoader, prefix: str, shape: LatentShape) -> QueryExpansion | None:
    if shape.query_rank is None:
        return None
    return QueryExpansion(
        _inner_norm(loader, f"{prefix}.q_a_layernorm", shape.query_rank),
        loader.linear(
            f"{prefix}.q_b_proj",
            shape.query_rank,
            shape.query_width,
            rows=[loader.shard.of(shape.query_width)],
        ),
    )


def _absorbed(
    loader: WeightLoader, prefix: str, shape: LatentShape
) -> tuple[HeadLinearLayer, HeadLinearLayer]:
    """The two halves of kv_b_proj: its key rows transposed, its value rows as they are."""
    height = shape.plain_width + shape.value_width
    whole = [shape.num_heads * height, shape.latent_width]
    rows = loader.shard.of(whole[0])
    weight_NL = loader.tensor(f"{prefix}.kv_b_proj.weight", whole, rows=rows)
    weight_HxL = weight_NL.view(-1, height, shape.latent_width)
    key_HnL, value_HvL = weight_HxL.tensor_split([shape.plain_width], dim=1)
    op = loader.ops.head_linear
    return (
        HeadLinearLayer(op, op.prepare(key_HnL.transpose(1, 2).contiguous())),
        HeadLinearLayer(op, op.prepare(value_HvL.contiguous())),
    )


def _inner_norm(loader: WeightLoader, name: str, width: int) -> RmsNormLayer:
    weight: torch.Tensor = loader.tensor(f"{name}.weight", [width])
    return RmsNormLayer(loader.ops.rms_norm, weight, _INNER_NORM_EPS)
