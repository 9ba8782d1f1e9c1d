"""Multi-head latent attention, whole and sparse."""

from collections.abc import Sequence
from dataclasses import replace

from moe_placement.model.attention import AttentionSpec
from moe_placement.model.fields import ConfigFields, SpecError


def latent_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """Every layer attends to all tokens (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""
    return [_latent(fields)] * fields.size("num_hidden_layers")


def sparse_latent_attention(fields: ConfigFields) -> Sequence[AttentionSpec]:
    """A query attends to `index_topk` tokens that an indexer chooses (DeepSeek-V3.2, arXiv
    2512.02556, section 2.1), always as if decoding, with the latent shared by all heads.

    A layer of GLM-5.2 may have no indexer, and take what the layer before it chose.
    """
    spec = _latent(fields)
    shared = replace(
        spec,
        kind="sparse_latent",
        prefill_flops_per_pair=spec.decode_flops_per_pair,
        selected=fields.size("index_topk"),
    )
    full = _with_indexer(fields, shared)
    return [shared if kind == "shared" else full for kind in _indexer_kinds(fields)]


def _latent(fields: ConfigFields) -> AttentionSpec:
    """One layer, which caches the latent and one rotary key; queries and outputs pass through
    the latent's width."""
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    latent, rotary = fields.size("kv_lora_rank"), fields.size("qk_rope_head_dim")
    plain, value = fields.size("qk_nope_head_dim"), fields.size("v_head_dim")
    query_latent = fields.optional("q_lora_rank")
    queries, values = heads * (plain + rotary), heads * value
    if query_latent is None:
        query_parameters = hidden * queries
    else:
        query_parameters = query_latent * (hidden + queries)
    down = (query_latent or 0) + latent + rotary
    biases = fields.flag("attention_bias") * (down + hidden)
    absorbed = latent * heads * (plain + value)
    return AttentionSpec(
        kind="latent",
        parameters=query_parameters
        + hidden * (latent + rotary)
        + absorbed
        + values * hidden
        + biases,
        head_parameters=absorbed,
        vector_parameters=biases,
        rows=queries,
        kv_rows=down,
        whole_rows=hidden,
        kv_parameters=hidden * down,
        norms=(query_latent or 0) + latent,
        kv_elements=latent + rotary,
        activations=queries + heads * (2 * latent + rotary) + values,
        num_heads=heads,
        num_kv_heads=1,
        row_elements=2 * latent + rotary,
        rotary_width=rotary,
        prefill_flops_per_pair=2.0 * (queries + values),
        decode_flops_per_pair=2.0 * heads * (2 * latent + rotary),
    )


def _with_indexer(fields: ConfigFields, spec: AttentionSpec) -> AttentionSpec:
    """Queries from the latent, one key for all heads with its layer norm, a weight per head."""
    hidden, query_latent = fields.size("hidden_size"), fields.size("q_lora_rank")
    heads, head = fields.size("index_n_heads"), fields.size("index_head_dim")
    return replace(
        spec,
        parameters=spec.parameters + query_latent * heads * head + hidden * (head + heads),
        rows=spec.rows + heads * head + head + heads,
        norms=spec.norms + 2 * head,
        activations=spec.activations + heads * (head + 1) + head,
        indexer_flops_per_pair=2.0 * heads * (head + 1),
        indexer_elements=head,
    )


def _indexer_kinds(fields: ConfigFields) -> list[str]:
    """`full` or `shared` of each layer: as listed, or full at every few layers."""
    num_layers = fields.size("num_hidden_layers")
    kinds = fields.find("indexer_types")
    if kinds is None:
        step = fields.optional("index_topk_freq") or 1
        first = fields.optional("index_skip_topk_offset") or 2
        distances = (max(layer - first + 1, 0) for layer in range(num_layers))
        return ["shared" if distance % step else "full" for distance in distances]
    if not isinstance(kinds, list) or len(kinds) < num_layers or set(kinds) - {"full", "shared"}:
        raise SpecError(
            f"config.json has indexer_types {kinds!r}; it must be a list of full or shared, "
            f"one for each of num_hidden_layers {num_layers}"
        )
    return kinds[:num_layers]
