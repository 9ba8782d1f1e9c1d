"""Dense and mixture-of-experts feed-forwards, as checkpoints name and shape them."""

import torch

from moe_serve.layers.gate import Gate, GroupLimit, SigmoidGate
from moe_serve.layers.linear import ExpertsLayer, LinearLayer
from moe_serve.layers.mlp import DenseMlp
from moe_serve.layers.moe import MoeLayer
from moe_serve.models.settings import Settings
from moe_serve.models.shape import ExpertNames, MoeShape
from moe_serve.weights.loader import WeightLoader


def moe_layer(
    loader: WeightLoader, layer: int, shape: MoeShape, gate: Gate, shared_bias: bool = False
) -> MoeLayer:
    """Routed experts, and shared ones where the shape has any."""
    shared = None
    if shape.shared_width:
        prefix = f"model.layers.{layer}.{shape.names.block}.shared_experts"
        shared = dense_mlp(loader, prefix, shape.width, shape.shared_width, shared_bias)
    return MoeLayer(layer, gate, routed_experts(loader, layer, shape), shared)


def routed_experts(loader: WeightLoader, layer: int, shape: MoeShape) -> ExpertsLayer:
    """Those of a layer that the loader's rank holds."""
    names = shape.names
    parts = (names.gate, names.up, names.down)
    template = expert_template(layer, names)
    return loader.experts(layer, template, shape.width, shape.expert_width, parts)


def expert_template(layer: int, names: ExpertNames) -> str:
    """Tensor names of a layer's experts, with fields {expert} and {name}."""
    return f"model.layers.{layer}.{names.block}.experts.{{expert}}.{{name}}.weight"


def dense_mlp(
    loader: WeightLoader, prefix: str, width: int, hidden_width: int, bias: bool = False
) -> DenseMlp:
    """The hidden numbers of the loader's shard."""
    return DenseMlp(
        loader.linear(
            [f"{prefix}.gate_proj", f"{prefix}.up_proj"],
            width,
            [hidden_width] * 2,
            bias=bias,
            rows=[loader.shard.of(hidden_width)] * 2,
        ),
        loader.linear_part(f"{prefix}.down_proj", hidden_width, width, bias=bias),
    )


def gate_logits(loader: WeightLoader, prefix: str, shape: MoeShape) -> LinearLayer:
    """The router's product, in float32 whatever the model's dtype."""
    weight_ED = loader.tensor(
        f"{prefix}.weight", [shape.num_experts, shape.width], dtype=torch.float32
    )
    op = loader.ops.plain_linear
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
