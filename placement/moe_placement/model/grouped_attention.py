"""Grouped-query attention of every family that has it, layer by layer."""

from collections.abc import Sequence
from dataclasses import replace

from moe_placement.model.attention import AttentionSpec, rotary_part
from moe_placement.model.fields import ConfigFields, SpecError


def plain_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """Without bias or norms (Mixtral)."""
    return _alike(fields, grouped(fields))


def biased_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """`attention_bias` holds for all projections (Llama)."""
    bias = fields.flag("attention_bias")
    return _alike(fields, grouped(fields, input_bias=bias, output_bias=bias))


def normed_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """The same with norms of each head's query and key (Qwen3)."""
    bias = fields.flag("attention_bias")
    spec = grouped(fields, input_bias=bias, output_bias=bias)
    return _alike(fields, replace(spec, norms=spec.row_elements))


def glm_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """`attention_bias` is of queries, keys and values alone; norms are optional (GLM-4.5)."""
    spec = grouped(fields, input_bias=fields.flag("attention_bias"), rotary_default=0.5)
    norms = spec.row_elements if fields.flag("use_qk_norm") else 0
    return _alike(fields, replace(spec, norms=norms))


def minimax_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """Norms over the queries, and the keys, of all heads together (MiniMax-M2)."""
    spec = grouped(fields)
    norms = (spec.num_heads + spec.num_kv_heads) * (spec.row_elements // 2)
    rotary = fields.optional("rotary_dim") or spec.rotary_width
    return _alike(fields, replace(spec, norms=norms, rotary_width=rotary))


def windowed_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """With a sink for each head; every other layer sees only a window (gpt-oss)."""
    bias = fields.flag("attention_bias")
    full = grouped(fields, input_bias=bias, output_bias=bias)
    full = replace(
        full,
        parameters=full.parameters + full.num_heads,
        vector_parameters=full.vector_parameters + full.num_heads,
    )
    windowed = replace(full, window=fields.size("sliding_window"))
    kinds = layer_kinds(fields, ("sliding_attention", "full_attention"))
    return [windowed if kind == "sliding_attention" else full for kind in kinds]


def grouped(
    fields: ConfigFields,
    *,
    input_bias: bool = False,
    output_bias: bool = False,
    output_gate: bool = False,
    rotary_default: float = 1.0,
) -> AttentionSpec:
    """One layer; an output gate is as wide as the queries, and projected with them."""
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    kv_heads = fields.optional("num_key_value_heads") or heads
    if heads % kv_heads:
        raise SpecError(
            f"config.json has num_attention_heads {heads}; num_key_value_heads {kv_heads} does "
            "not divide them"
        )
    head = fields.optional("head_dim") or hidden // heads
    outputs, kv = heads * head, 2 * kv_heads * head
    queries = outputs * (1 + output_gate)
    biases = input_bias * (queries + kv) + output_bias * hidden
    return AttentionSpec(
        kind="grouped",
        parameters=hidden * (queries + kv) + outputs * hidden + biases,
        vector_parameters=biases,
        rows=queries,
        kv_rows=kv,
        whole_rows=hidden,
        kv_parameters=(hidden + input_bias) * kv,
        norms=0,
        kv_elements=kv,
        activations=queries + outputs + kv,
        num_heads=heads,
        num_kv_heads=kv_heads,
        row_elements=2 * head,
        rotary_width=int(head * rotary_part(fields, rotary_default)),
        prefill_flops_per_pair=4.0 * outputs,
        decode_flops_per_pair=4.0 * outputs,
    )


def layer_kinds(fields: ConfigFields, cycle: Sequence[str]) -> list[str]:
    """`layer_types`, each of them in `cycle`; where the file has none, `cycle` repeated.

    Raises:
        SpecError: another number of layers, or a kind that is not known.
    """
    num_layers = fields.size("num_hidden_layers")
    kinds = fields.find("layer_types")
    if kinds is None:
        return [cycle[layer % len(cycle)] for layer in range(num_layers)]
    if not isinstance(kinds, list) or len(kinds) < num_layers:
        raise SpecError(
            f"config.json has layer_types {kinds!r}; it must be a list of "
            f"num_hidden_layers {num_layers} kinds"
        )
    for kind in kinds:
        if kind not in cycle:
            known = ", ".join(dict.fromkeys(cycle))
            raise SpecError(f"config.json has layer_types with {kind!r}; known are {known}")
    return kinds[:num_layers]


def _alike(fields: ConfigFields, spec: AttentionSpec) -> Sequence[AttentionSpec]:
    return [spec] * fields.size("num_hidden_layers")
