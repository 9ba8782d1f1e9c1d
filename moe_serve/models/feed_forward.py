"""Dense and mixture-of-experts feed-forwards, as checkpoints name and shape them."""

import torch

from moe_serve.layers.gate import Gate, GroupLimit, SigmoidGate
from moe_serve.layers.linear import LinearLayer
from moe_serve.layers.mlp import DenseMlp
from moe_serve.layers.moe import MoeLayer
from moe_serve.models.settings import Settings
from moe_serve.models.shape import MoeShape
from moe_serve.weights.loader import WeightLoader


def moe_layer(
    loader: WeightLoader, layer: int, shape: MoeShape, gate: Gate, shared_bias: bool = False
) -> MoeLayer:
    """Routed experts, and shared ones where the shape has any."""
    prefix = f"model.layers.{layer}.mlp"
    experts = loader.experts(
        layer, f"{prefix}.experts.{{expert}}.{{name}}.weight", shape.width, shape.expert_width
    )
    shared = None
    if shape.shared_width:
        shared = dense_mlp(
            loader, f"{prefix}.shared_experts", shape.width, shape.shared_width, shared_bias
        )
    return MoeLayer(layer, gate, experts, shared)


def dense_mlp(
    loader: WeightLoader, prefix: str, width: int, hidden_width: int, bias: bool = False
) -> DenseMlp:
    return DenseMlp(
        loader.linear(
            [f"{prefix}.gate_proj", f"{prefix}.up_proj"], width, [hidden_width] * 2, bias=bias
        ),
        loader.linear(f"{prefix}.down_proj", hidden_width, width, bias=bias),
    )


def gate_logits(loader: WeightLoader, prefix: str, shape: MoeShape) -> LinearLayer:
    """The router's product, in float32 whatever the model's dtype."""
    weight_ED = loader.tensor(
        f"{prefix}.weight", [shape.num_experts, shape.width], dtype=torch.float32
    )
    op = loader.ops.linear
    return LinearLayer(op, op.prepare(weight_ED))


def sigmoid_gate(
    loader: WeightLoader, prefix: str, shape: MoeShape, settings: Settings
) -> SigmoidGate:
    """The gate of DeepSeek-V3 and its followers."""
    return SigmoidGate(
        gate_logits(loader, prefix, shape),
        loader.tensor(f"{prefix}.e_score_correction_bias", [shape.num_experts], torch.float32),
        shape.num_chosen,
        renormalise=settings.flag("norm_topk_prob", True),
        scaling=settings.number("routed_scaling_factor", default=1.0),
        groups=group_limit(settings, num_scored=2),
    )


def group_limit(settings: Settings, num_scored: int) -> GroupLimit | None:
    """None where all experts are in one group."""
    num_groups = settings.integer("n_group", default=1)
    if num_groups == 1:
        return None
    return GroupLimit(num_groups, settings.integer("topk_group"), num_scored)
