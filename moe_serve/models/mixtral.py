"""Mixtral (arXiv:2401.04088): the Llama decoder with a mixture of experts in every layer."""

from moe_serve.layers.attention import GroupedAttention
from moe_serve.layers.gate import SoftmaxGate
from moe_serve.layers.moe import MoeLayer
from moe_serve.models.feed_forward import gate_logits, moe_layer
from moe_serve.models.grouped import grouped_attention, read_grouped
from moe_serve.models.rope import rotary_shape
from moe_serve.models.settings import Settings
from moe_serve.models.shape import ExpertNames, MoeShape, read_shape
from moe_serve.weights.loader import WeightLoader


class Mixtral:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.heads = read_grouped(settings)
        self.rotary = rotary_shape(settings, self.heads.head_width, theta=1e6)
        self.moe = MoeShape(
            width=settings.integer("hidden_size"),
            num_experts=settings.integer("num_local_experts", "num_experts"),
            num_chosen=settings.integer("num_experts_per_tok"),
            expert_width=settings.integer("intermediate_size"),
            names=ExpertNames("block_sparse_moe", "w1", "w3", "w2"),
        )
        moe_layers = range(settings.integer("num_hidden_layers"))
        self.shape = read_shape(settings, self.heads.cache_spec, self.moe, moe_layers)

    def attention(self, loader: WeightLoader, layer: int) -> GroupedAttention:
        return grouped_attention(loader, layer, self.heads)

    def feed_forward(self, loader: WeightLoader, layer: int) -> MoeLayer:
        prefix = f"model.layers.{layer}.{self.moe.names.block}"
        gate = SoftmaxGate(
            gate_logits(loader, f"{prefix}.gate", self.moe), self.moe.num_chosen, renormalise=True
        )
        return moe_layer(loader, layer, self.moe, gate)
