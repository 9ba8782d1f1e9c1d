"""Parameters, cache and activations of one attention layer, by kind."""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_placement.model.fields import ConfigFields


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """One layer's attention.

    Attributes:
        parameters: projections with their biases.
        norms: the norms inside attention, of queries and keys or of latents.
        kv_elements: elements that one token keeps in the cache.
        activations: elements that one token needs while the layer runs.
        num_heads: of the queries.
        row_elements: of one head's query and its result, as they meet the cache.
        rotary_width: how many numbers of a head turn with position.
    """

    parameters: int
    norms: int
    kv_elements: int
    activations: int
    num_heads: int
    row_elements: int
    rotary_width: int


def grouped_attention(fields: ConfigFields) -> AttentionSpec:
    """Grouped-query attention, without bias or norms (Mixtral)."""
    return _grouped(fields)


def biased_attention(fields: ConfigFields) -> AttentionSpec:
    """Grouped-query attention where `attention_bias` holds for all projections (Llama)."""
    bias = fields.flag("attention_bias")
    return _grouped(fields, input_bias=bias, output_bias=bias)


def normed_attention(fields: ConfigFields) -> AttentionSpec:
    """The same with norms of each head's query and key (Qwen3)."""
    bias = fields.flag("attention_bias")
    return _grouped(fields, input_bias=bias, output_bias=bias, norms=True)


def glm_attention(fields: ConfigFields) -> AttentionSpec:
    """`attention_bias` is of queries, keys and values alone; norms are optional (GLM-4.5)."""
    bias, norms = fields.flag("attention_bias"), fields.flag("use_qk_norm")
    return _grouped(fields, input_bias=bias, norms=norms, rotary_part=0.5)


def _grouped(
    fields: ConfigFields,
    *,
    input_bias: bool = False,
    output_bias: bool = False,
    norms: bool = False,
    rotary_part: float = 1.0,
) -> AttentionSpec:
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    kv_heads = fields.optional("num_key_value_heads") or heads
    head = fields.optional("head_dim") or hidden // heads
    queries, kv = heads * head, 2 * kv_heads * head
    biases = input_bias * (queries + kv) + output_bias * hidden
    return AttentionSpec(
        parameters=hidden * (queries + kv) + queries * hidden + biases,
        norms=2 * head if norms else 0,
        kv_elements=kv,
        activations=2 * queries + kv,
        num_heads=heads,
        row_elements=2 * head,
        rotary_width=int(head * _rotary_part(fields, rotary_part)),
    )


def _rotary_part(fields: ConfigFields, default: float) -> float:
    """The part of a head that turns, where the config or its rotary settings name one."""
    rotary = fields.find("rope_scaling") or fields.find("rope_parameters") or {}
    part = rotary.get("partial_rotary_factor") if isinstance(rotary, Mapping) else None
    return float(part or fields.find("partial_rotary_factor") or default)


def latent_attention(fields: ConfigFields) -> AttentionSpec:
    """Multi-head latent attention, which caches the latent and one rotary key (DeepSeek-V2,
    arXiv 2405.04434, section 2.1); queries and outputs pass through the latent's width."""
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    latent, rotary = fields.size("kv_lora_rank"), fields.size("qk_rope_head_dim")
    plain, value = fields.size("qk_nope_head_dim"), fields.size("v_head_dim")
    query_latent = fields.optional("q_lora_rank")
    queries, values = heads * (plain + rotary), heads * value
    if query_latent is None:
        query_parameters = hidden * queries
    else:
        query_parameters = query_latent * (hidden + queries)
    biases = (query_latent or 0) + latent + rotary + hidden
    kv_parameters = hidden * (latent + rotary) + latent * heads * (plain + value)
    return AttentionSpec(
        parameters=query_parameters
        + kv_parameters
        + values * hidden
        + fields.flag("attention_bias") * biases,
        norms=(query_latent or 0) + latent,
        kv_elements=latent + rotary,
        activations=queries + heads * (2 * latent + rotary) + values,
        num_heads=heads,
        row_elements=2 * latent + rotary,
        rotary_width=rotary,
    )
