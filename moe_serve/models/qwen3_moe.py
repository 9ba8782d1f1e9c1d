"""Qwen3-MoE (arXiv:2505.09388): normalised query and key heads, and a softmax gate over experts."""

from moe_serve.layers.attention import GroupedAttention
from moe_serve.layers.gate import SoftmaxGate
from moe_serve.layers.mlp import FeedForward
from moe_serve.models.feed_forward import dense_mlp, gate_logits, moe_layer
from moe_serve.models.grouped import grouped_attention, read_grouped
from moe_serve.models.rope import rotary_shape
from moe_serve.models.settings import Settings
from moe_serve.models.shape import read_moe, read_shape
from moe_serve.weights.loader import WeightLoader


class Qwen3Moe:
    def __init__(self, settings: Settings) -> None:
        bias = settings.flag("attention_bias")
        self.settings = settings
        self.heads = read_grouped(settings, bias=bias, output_bias=bias, head_norm=True)
        self.rotary = rotary_shape(settings, self.heads.head_width)
        self.moe = read_moe(settings)
        self.shape = read_shape(settings, self.heads.cache_spec, self.moe, _moe_layers(settings))

    def attention(self, loader: WeightLoader, layer: int) -> GroupedAttention:
        return grouped_attention(loader, layer, self.heads)

    def feed_forward(self, loader: WeightLoader, layer: int) -> FeedForward:
        prefix = f"model.layers.{layer}.mlp"
        if layer not in self.shape.moe_layers:
            hidden_width = self.settings.integer("intermediate_size")
            return dense_mlp(loader, prefix, self.shape.width, hidden_width)
        gate = SoftmaxGate(
            gate_logits(loader, f"{prefix}.gate", self.moe),
            self.moe.num_chosen,
            renormalise=self.settings.flag("norm_topk_prob"),
        )
        return moe_layer(loader, layer, self.moe, gate)


def _moe_layers(settings: Settings) -> list[int]:
    """Every `decoder_sparse_step`-th layer, but for `mlp_only_layers`."""
    step = settings.integer("decoder_sparse_step", default=1)
    dense = settings.integers("mlp_only_layers")
    layers = range(settings.integer("num_hidden_layers"))
    return [layer for layer in layers if layer not in dense and (layer + 1) % step == 0]
