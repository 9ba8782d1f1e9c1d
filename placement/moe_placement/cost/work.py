"""What one step asks of one device: bytes, FLOPs, messages and kernels, from model and parallelism.

Counts alone: no device, no efficiency. All are floats, over all layers, so that a fit may put an
array of one per measured row in each one's place.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_placement.cost.parallelism import Parallelism
from moe_placement.model.formats import find_format
from moe_placement.model.spec import ModelSpec

# Kernels of one layer besides its exchanges. Attention: norm, projections, rotary and cache
# write, attention, output; latents add products and norms, states a convolution and gates,
# selection an indexer and top-k. Experts: gate, top-k, sort, quantisation, two grouped products,
# activation, weighted sum.
_ATTENTION_KERNELS: Mapping[str, float] = {
    "grouped": 8.0,
    "latent": 13.0,
    "linear": 12.0,
    "sparse_latent": 22.0,
}
_DENSE_KERNELS = 4.0
_EXPERT_KERNELS = 9.0
_SHARED_KERNELS = 3.0
_BFLOAT16_BYTES = 2.0
_FLOAT32_BYTES = 4.0
# To another attention group a row goes in 8 bits and comes back in 16.
_DISPATCH_BYTES = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """One device's part of a step.

    A group token is a token of this device's attention group, a worker token one of any group.
    Attention is far, over all of the context, or near, over `near_reach` tokens of it at most.

    Attributes:
        dense_bytes: weights that every step reads, whatever its tokens.
        dense_flops: of a group token with them.
        logits_flops: of a group sequence that yields a token.
        moe_layers: layers with experts.
        experts: of one layer on this device.
        chosen_share: part of all experts that one token chooses.
        expert_bytes: this device's part of one expert.
        expert_rows: that one worker token gives this device in one layer, in the mean.
        expert_flops: of one row.
        row_elements: of the rows that one worker token gives this device over all layers.
        far_cache: bytes read for each token of context of a decoding sequence.
        far_decode: FLOPs of one token that decodes with one of its context.
        far_prefill: the same of a prompt's token.
        state_bytes: read and written for each decoding sequence whatever its context.
        elements: of the hidden state over all layers, of a group token.
        reduces: all-reduces among the devices that share an attention group.
        reduce_bytes: that a device sends in all of them for a group token.
        exchanges: dispatches and combines between attention groups.
        exchange_bytes: that a device sends in them for a group token.
        kernels: launched in one pass.
    """

    tensor_parallel: float
    data_parallel: float
    expert_parallel: float
    dense_bytes: float
    dense_flops: float
    logits_flops: float
    moe_layers: float
    experts: float
    chosen_share: float
    expert_bytes: float
    expert_rows: float
    expert_flops: float
    row_elements: float
    far_cache: float
    far_decode: float
    far_prefill: float
    near_reach: float
    near_cache: float
    near_decode: float
    near_prefill: float
    state_bytes: float
    elements: float
    reduces: float
    reduce_bytes: float
    exchanges: float
    exchange_bytes: float
    kernels: float


def step_work(
    spec: ModelSpec, parallelism: Parallelism, weight_format: str, kv_format: str
) -> StepWork:
    """Count one device's work; a step passes all pipeline stages one after the other.

    Raises:
        FormatError: a format is not known.
    """
    return StepWork(
        tensor_parallel=float(parallelism.tensor_parallel),
        data_parallel=float(parallelism.data_parallel),
        expert_parallel=float(parallelism.expert_parallel),
        elements=float(spec.num_layers * spec.hidden_size),
        kernels=_kernels(spec),
        **_dense(spec, parallelism, weight_format),
        **_experts(spec, parallelism, weight_format),
        **_attention(spec, parallelism, kv_format),
        **_messages(spec, parallelism),
    )


def _dense(spec: ModelSpec, parallelism: Parallelism, weight_format: str) -> dict[str, float]:
    parts = ("attention", "dense_mlp", "shared_experts", "gate")
    held, flops = spec.bytes(weight_format), spec.flops_per_token
    head = held["head"] or held["embedding"]
    shares = parallelism.tensor_parallel
    return {
        "dense_bytes": (sum(held[part] for part in parts) + head) / shares,
        "dense_flops": sum(flops[part] for part in parts) / shares,
        "logits_flops": flops["head"] / shares,
    }


def _experts(spec: ModelSpec, parallelism: Parallelism, weight_format: str) -> dict[str, float]:
    shares = parallelism.expert_tensor_parallel
    num_experts = spec.num_experts or 1
    rows = spec.num_experts_per_token / parallelism.expert_parallel
    return {
        "moe_layers": float(len(spec.moe_layers)),
        "experts": spec.num_experts / parallelism.expert_parallel,
        "chosen_share": spec.num_experts_per_token / num_experts,
        "expert_bytes": spec.expert_bytes(weight_format) / shares,
        "expert_rows": rows,
        "expert_flops": 2.0 * spec.mlp.expert / shares,
        "row_elements": len(spec.moe_layers) * spec.hidden_size * rows,
    }


def _attention(spec: ModelSpec, parallelism: Parallelism, kv_format: str) -> dict[str, float]:
    kv_bytes = find_format(kv_format).bits_per_element / 8
    total = dict.fromkeys(
        ("far_cache", "far_decode", "far_prefill", "near_cache", "near_decode", "near_prefill"), 0.0
    )
    reaches = [0.0]
    for kind, count in spec.attention_layers:
        reach = kind.window or kind.selected
        reaches.append(float(reach))
        place = "near" if reach else "far"
        heads = count / min(parallelism.tensor_parallel, kind.num_heads)
        copies = count / min(parallelism.tensor_parallel, kind.num_kv_heads)
        total[f"{place}_cache"] += copies * kind.kv_elements * kv_bytes
        total[f"{place}_decode"] += heads * kind.decode_flops_per_pair
        total[f"{place}_prefill"] += heads * kind.prefill_flops_per_pair
        total["far_cache"] += count * kind.indexer_elements * kv_bytes
        total["far_decode"] += count * kind.indexer_flops_per_pair
        total["far_prefill"] += count * kind.indexer_flops_per_pair
    states = spec.state_elements / parallelism.tensor_parallel
    return total | {"near_reach": max(reaches), "state_bytes": 2 * _FLOAT32_BYTES * states}


def _messages(spec: ModelSpec, parallelism: Parallelism) -> dict[str, float]:
    """All-reduces after attention and after the feed-forward layer; where attention groups share
    experts, rows go to the devices of their experts and come back instead of the second."""
    num_shares, num_moe = parallelism.tensor_parallel, len(spec.moe_layers)
    is_exchanged = parallelism.data_parallel > 1
    reduces = (2 * spec.num_layers - num_moe * is_exchanged) * (num_shares > 1)
    sent = 2 * (num_shares - 1) / num_shares * spec.hidden_size * _BFLOAT16_BYTES
    others = 1 - 1 / parallelism.expert_parallel
    places = parallelism.expert_parallel * (1 - others**spec.num_experts_per_token) * others
    row = spec.hidden_size * _DISPATCH_BYTES / num_shares
    return {
        "reduces": float(reduces),
        "reduce_bytes": reduces * sent,
        "exchanges": 2.0 * num_moe * is_exchanged,
        "exchange_bytes": num_moe * is_exchanged * places * row,
    }


def _kernels(spec: ModelSpec) -> float:
    attention = sum(_ATTENTION_KERNELS[kind.kind] * count for kind, count in spec.attention_layers)
    moe = _EXPERT_KERNELS + _SHARED_KERNELS * bool(spec.mlp.shared_experts)
    return attention + _DENSE_KERNELS * spec.num_dense_layers + moe * len(spec.moe_layers)
