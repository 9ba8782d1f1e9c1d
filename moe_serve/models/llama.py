"""Llama (arXiv:2407.21783), dense: grouped-query attention and SwiGLU."""

from moe_serve.layers.attention import GroupedAttention
from moe_serve.layers.mlp import DenseMlp
from moe_serve.models.feed_forward import dense_mlp
from moe_serve.models.grouped import grouped_attention, read_grouped
from moe_serve.models.rope import rotary_shape
from moe_serve.models.settings import Settings
from moe_serve.models.shape import read_shape
from moe_serve.weights.loader import WeightLoader


class Llama:
    head_norm = False

    def __init__(self, settings: Settings) -> None:
        bias = settings.flag("attention_bias")
        self.settings = settings
        self.heads = read_grouped(settings, bias=bias, output_bias=bias, head_norm=self.head_norm)
        self.rotary = rotary_shape(settings, self.heads.head_width)
        self.shape = read_shape(settings, self.heads.cache_spec)

    def attention(self, loader: WeightLoader, layer: int) -> GroupedAttention:
        return grouped_attention(loader, layer, self.heads)

    def feed_forward(self, loader: WeightLoader, layer: int) -> DenseMlp:
        return dense_mlp(
            loader,
            f"model.layers.{layer}.mlp",
            self.shape.width,
            self.settings.integer("intermediate_size"),
            bias=self.settings.flag("mlp_bias"),
        )
