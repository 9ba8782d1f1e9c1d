"""Parameters of a model's feed-forward layers, dense and routed, by family."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moe_placement.model.fields import ConfigFields, SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpSpec:
    """A model's feed-forward layers; parameters are of one layer.

    Attributes:
        dense: a dense layer.
        dense_width: its inner width.
        moe_layers: indices of the layers with experts.
        gate: the router's weights.
        gate_bias: the router's correction bias, a buffer kept in float32.
        shared_experts: all of a layer's shared experts.
        shared_width: their inner width together.
        expert: one routed expert.
        expert_width: its inner width.
    """

    dense: int
    dense_width: int
    moe_layers: tuple[int, ...] = ()
    num_experts: int = 0
    num_experts_per_token: int = 0
    gate: int = 0
    gate_bias: int = 0
    shared_experts: int = 0
    shared_width: int = 0
    expert: int = 0
    expert_width: int = 0


def gated_rows(hidden: int, width: int) -> int:
    """Output rows of gate, up and down projections."""
    return 2 * width + hidden


def dense_mlp(fields: ConfigFields) -> MlpSpec:
    """Every layer dense (Llama, Qwen3)."""
    width = fields.size("intermediate_size")
    return MlpSpec(dense=_gated(fields, width), dense_width=width)


def mixtral_mlp(fields: ConfigFields) -> MlpSpec:
    """Every layer routed; `intermediate_size` is an expert's."""
    layers = tuple(range(fields.size("num_hidden_layers")))
    return _routed(fields, layers, "num_local_experts", fields.size("intermediate_size"))


def qwen_mlp(fields: ConfigFields) -> MlpSpec:
    """Routed at every `decoder_sparse_step`-th layer but those of `mlp_only_layers`."""
    step, dense_layers = fields.size("decoder_sparse_step"), fields.find("mlp_only_layers") or []
    if not isinstance(dense_layers, list):
        raise SpecError(f"config.json has mlp_only_layers {dense_layers!r}; it must be a list")
    layers = tuple(
        layer
        for layer in range(fields.size("num_hidden_layers"))
        if fields.count("num_experts") and (layer + 1) % step == 0 and layer not in dense_layers
    )
    return _routed(fields, layers, "num_experts", fields.size("moe_intermediate_size"))


def softmax_mlp(fields: ConfigFields) -> MlpSpec:
    """Routed at every `moe_layer_freq`-th layer after the first `first_k_dense_replace`, with
    shared experts (DeepSeek-V2)."""
    return _shared(fields, _every_few_layers(fields), has_gate_bias=False)


def sigmoid_mlp(fields: ConfigFields) -> MlpSpec:
    """The same with a correction bias in the router (DeepSeek-V3)."""
    return _shared(fields, _every_few_layers(fields), has_gate_bias=True)


def glm_mlp(fields: ConfigFields) -> MlpSpec:
    """Routed at all layers after the first few, otherwise like DeepSeek-V3 (GLM-4.5)."""
    return _shared(fields, _late_layers(fields), has_gate_bias=True)


def minimax_mlp(fields: ConfigFields) -> MlpSpec:
    """Every layer routed, with a correction bias in the router (MiniMax-M2)."""
    layers = tuple(range(fields.size("num_hidden_layers")))
    width = fields.size("intermediate_size")
    return _routed(fields, layers, "num_local_experts", width, has_gate_bias=True)


def biased_mlp(fields: ConfigFields) -> MlpSpec:
    """Like Mixtral's, with biases in routers and experts (gpt-oss)."""
    spec, hidden = mixtral_mlp(fields), fields.size("hidden_size")
    return replace(
        spec,
        gate=spec.gate + spec.num_experts,
        expert=spec.expert + 2 * spec.expert_width + hidden,
    )


def gated_share_mlp(fields: ConfigFields) -> MlpSpec:
    """Every layer routed, with one shared expert whose output a gate scales (Qwen3.5)."""
    layers = tuple(range(fields.size("num_hidden_layers")))
    shared_width = fields.size("shared_expert_intermediate_size")
    width = fields.size("moe_intermediate_size")
    spec = _routed(fields, layers, "num_experts", width, shared_width=shared_width)
    return replace(spec, shared_experts=spec.shared_experts + fields.size("hidden_size"))


def _late_layers(fields: ConfigFields) -> range:
    return range(fields.count("first_k_dense_replace"), fields.size("num_hidden_layers"))


def _every_few_layers(fields: ConfigFields) -> list[int]:
    has_step = fields.find("moe_layer_freq") is not None
    step = fields.size("moe_layer_freq") if has_step else 1
    return [layer for layer in _late_layers(fields) if layer % step == 0]


def _shared(fields: ConfigFields, layers: Iterable[int], *, has_gate_bias: bool) -> MlpSpec:
    width = fields.size("moe_intermediate_size")
    return _routed(
        fields,
        tuple(layers),
        "n_routed_experts",
        width,
        shared_width=width * (fields.optional("n_shared_experts") or 0),
        has_gate_bias=has_gate_bias,
    )


def _routed(
    fields: ConfigFields,
    layers: tuple[int, ...],
    experts_key: str,
    width: int,
    *,
    shared_width: int = 0,
    has_gate_bias: bool = False,
) -> MlpSpec:
    hidden, has_dense = fields.size("hidden_size"), len(layers) < fields.size("num_hidden_layers")
    dense_width = fields.size("intermediate_size") if has_dense else 0
    dense = _gated(fields, dense_width) if has_dense else 0
    if not layers:
        return MlpSpec(dense=dense, dense_width=dense_width)
    num_experts, top_k = fields.size(experts_key), fields.size("num_experts_per_tok")
    if top_k > num_experts:
        raise SpecError(
            f"config.json has num_experts_per_tok {top_k}; there are {num_experts} experts"
        )
    return MlpSpec(
        dense=dense,
        dense_width=dense_width,
        moe_layers=layers,
        num_experts=num_experts,
        num_experts_per_token=top_k,
        gate=num_experts * hidden,
        gate_bias=num_experts if has_gate_bias else 0,
        shared_experts=_gated(fields, shared_width) if shared_width else 0,
        shared_width=shared_width,
        expert=3 * hidden * width,
        expert_width=width,
    )


def _gated(fields: ConfigFields, width: int) -> int:
    """Gate, up and down projections; biased where the family has `mlp_bias` and it is true."""
    hidden = fields.size("hidden_size")
    has_bias = "mlp_bias" in fields.defaults and fields.flag("mlp_bias")
    return 3 * hidden * width + has_bias * (2 * width + hidden)
