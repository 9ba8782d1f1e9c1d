"""GLM-4.5 (arXiv:2508.06471): grouped-query attention that turns half of each head, and
DeepSeek-V3's gate over routed experts beside a shared one."""

from moe_serve.layers.attention import GroupedAttention
from moe_serve.layers.mlp import FeedForward
from moe_serve.models.feed_forward import dense_mlp, moe_layer, sigmoid_gate
from moe_serve.models.grouped import grouped_attention, read_grouped
from moe_serve.models.rope import rotary_shape
from moe_serve.models.settings import Settings
from moe_serve.models.shape import read_moe, read_shape
from moe_serve.weights.loader import WeightLoader


class Glm4Moe:
    """The first `first_k_dense_replace` layers are dense."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.heads = read_grouped(
            settings,
            bias=settings.flag("attention_bias"),
            head_norm=settings.flag("use_qk_norm"),
        )
        self.rotary = rotary_shape(settings, self.heads.head_width, partial=0.5)
        self.moe = read_moe(settings)
        first = settings.integer("first_k_dense_replace", default=1)
        moe_layers = range(first, settings.integer("num_hidden_layers"))
        self.shape = read_shape(settings, self.heads.cache_spec, self.moe, moe_layers)

    def attention(self, loader: WeightLoader, layer: int) -> GroupedAttention:
        return grouped_attention(loader, layer, self.heads)

    def feed_forward(self, loader: WeightLoader, layer: int) -> FeedForward:
        prefix = f"model.layers.{layer}.mlp"
        if layer not in self.shape.moe_layers:
            hidden_width = self.settings.integer("intermediate_size")
            return dense_mlp(loader, prefix, self.shape.width, hidden_width)
        gate = sigmoid_gate(loader, f"{prefix}.gate", self.moe, self.settings)
        return moe_layer(loader, layer, self.moe, gate)
