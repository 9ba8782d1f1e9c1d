"""DeepSeek-V2 (arXiv:2405.04434) and DeepSeek-V3 (arXiv:2412.19437): latent attention, and many
small routed experts beside shared ones. They differ in the gate alone; R1 and Kimi-K2 are V3."""

from moe_serve.layers.gate import Gate, SoftmaxGate
from moe_serve.layers.latent_attention import LatentAttention
from moe_serve.layers.mlp import FeedForward
from moe_serve.models.feed_forward import (
    dense_mlp,
    gate_logits,
    group_limit,
    moe_layer,
    sigmoid_gate,
)
from moe_serve.models.latent import latent_attention, read_latent
from moe_serve.models.rope import rotary_shape
from moe_serve.models.settings import Settings
from moe_serve.models.shape import read_moe, read_shape
from moe_serve.weights.loader import WeightLoader


class DeepseekV3:
    """Sigmoid scores with a correction bias; experts limited to the groups with the best pairs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.heads = read_latent(settings)
        self.rotary = rotary_shape(
            settings,
            self.heads.rotary_width,
            interleaved=settings.flag("rope_interleave", True),
        )
        self.moe = read_moe(settings)
        self.shape = read_shape(settings, self.heads.cache_spec, self.moe, _moe_layers(settings))
        self.check_gate()

    def check_gate(self) -> None:
        """Raises UnsupportedError where the config asks for another gate."""
        self.settings.require("scoring_func", "sigmoid", "sigmoid")
        self.settings.require("topk_method", "noaux_tc", "noaux_tc")

    def attention(self, loader: WeightLoader, layer: int) -> LatentAttention:
        return latent_attention(loader, layer, self.heads, self.rotary)

    def feed_forward(self, loader: WeightLoader, layer: int) -> FeedForward:
        prefix, bias = f"model.layers.{layer}.mlp", self.settings.flag("mlp_bias")
        if layer not in self.shape.moe_layers:
            hidden_width = self.settings.integer("intermediate_size")
            return dense_mlp(loader, prefix, self.shape.width, hidden_width, bias)
        return moe_layer(loader, layer, self.moe, self.gate(loader, f"{prefix}.gate"), bias)

    def gate(self, loader: WeightLoader, prefix: str) -> Gate:
        return sigmoid_gate(loader, prefix, self.moe, self.settings)


class DeepseekV2(DeepseekV3):
    """Softmax scores; experts limited to the groups with the best one, or not at all."""

    def check_gate(self) -> None:
        self.settings.require("scoring_func", "softmax", "softmax")
        self.settings.require("topk_method", "greedy", "greedy", "group_limited_greedy")

    def gate(self, loader: WeightLoader, prefix: str) -> Gate:
        limited = self.settings.require("topk_method", "greedy", "greedy", "group_limited_greedy")
        groups = group_limit(self.settings, num_scored=1)
        # Its weights are never renormalised: transformers reads no norm_topk_prob here.
        return SoftmaxGate(
            gate_logits(loader, prefix, self.moe),
            self.moe.num_chosen,
            scaling=self.settings.number("routed_scaling_factor", default=1.0),
            groups=groups if limited == "group_limited_greedy" else None,
        )


def _moe_layers(settings: Settings) -> list[int]:
    """All but the first `first_k_dense_replace`, or every `moe_layer_freq`-th of them."""
    first = settings.integer("first_k_dense_replace", default=0)
    step = settings.integer("moe_layer_freq", default=1)
    layers = range(first, settings.integer("num_hidden_layers"))
    return [layer for layer in layers if layer % step == 0]
