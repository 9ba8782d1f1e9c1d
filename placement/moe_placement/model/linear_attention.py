"""Gated delta rule layers, and full attention with an output gate between them."""

from collections.abc import Sequence
from dataclasses import replace

from moe_placement.model.attention import AttentionSpec
from moe_placement.model.fields import ConfigFields
from moe_placement.model.grouped_attention import grouped, layer_kinds

# Multiplications and additions for each element of the state: it decays, is read with the key,
# takes a rank-one correction, and is read with the query.
_STATE_FLOPS = 7.0
# Of full attention layers, where neither it nor the layers' kinds are in the file.
_INTERVAL = 4


def hybrid_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """Every `full_attention_interval`-th layer is full, the others linear (Qwen3.5)."""
    bias = fields.flag("attention_bias")
    full = grouped(fields, input_bias=bias, output_bias=bias, output_gate=True, rotary_default=0.25)
    full = replace(full, norms=full.row_elements)
    linear = _gated_delta(fields)
    interval = fields.optional("full_attention_interval") or _INTERVAL
    cycle = ["linear_attention"] * (interval - 1) + ["full_attention"]
    kinds = layer_kinds(fields, cycle)
    return [linear if kind == "linear_attention" else full for kind in kinds]


def _gated_delta(fields: ConfigFields) -> AttentionSpec:
    """One gated DeltaNet layer (arXiv 2412.06464, section 3).

    Its state is a matrix for each value head and the last inputs of a short convolution; a
    decay and a step size for each value head come from projections of their own.
    """
    hidden, kernel = fields.size("hidden_size"), fields.size("linear_conv_kernel_dim")
    heads = fields.size("linear_num_value_heads")
    key_head, value_head = fields.size("linear_key_head_dim"), fields.size("linear_value_head_dim")
    keys, values = fields.size("linear_num_key_heads") * key_head, heads * value_head
    mixed = 2 * keys + values
    state = values * key_head
    return AttentionSpec(
        kind="linear",
        parameters=hidden * (mixed + 2 * values + 2 * heads) + mixed * kernel + 2 * heads,
        vector_parameters=mixed * kernel + 2 * heads,
        rows=mixed + values + 2 * heads,
        whole_rows=hidden,
        kv_parameters=0,
        norms=value_head,
        kv_elements=0,
        activations=2 * mixed + 2 * values,
        num_heads=heads,
        num_kv_heads=heads,
        row_elements=0,
        rotary_width=0,
        prefill_flops_per_pair=0.0,
        decode_flops_per_pair=0.0,
        state_elements=state + (kernel - 1) * mixed,
        state_flops=_STATE_FLOPS * state,
    )
