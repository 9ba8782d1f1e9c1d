"""An estimate of the bytes that one step needs beside weights and cache."""

from moe_placement.memory.attention_space import attention_space, shard
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan

# The residual stream, its normed copy, and a layer's output.
_HIDDEN_COPIES = 3
# Of each logit until its row's token is chosen: with penalties, a top-p that takes all tokens to
# decide, and logprobs, the most that sampling can be asked for.
LOGIT_BYTES = 64
# Recurrent states are float32, whatever the activations.
_STATE_BYTES = 4


def working_space(
    spec: ModelSpec,
    plan: Plan,
    rank: int,
    activation_bytes: int,
    max_tokens_per_step: int,
    max_sequences: int | None = None,
    max_length: int | None = None,
) -> int:
    """Bytes of a full step on one rank, every rank with tokens being full and routing even.

    Tensor parallelism divides attention's heads and the widths of dense and shared layers.
    Counted: the hidden states, the widest phase of a layer (attention with its blocks of gathered
    keys and scores, a dense layer, or the experts with the rows they receive and those sent and
    returned), or the logits of the sampled tokens where choosing from them takes more; and the
    recurrent state of each sequence, where the model has one. Not counted: rows beyond an even
    share when routing is uneven.

    Args:
        max_sequences: the most tokens whose logits one step wants; None is all its tokens.
        max_length: tokens of the longest sequence, in whole pages; None is the model's context.
    """
    pool = plan.pool_of(rank)
    tokens = max_tokens_per_step if pool.role != "experts" else 0
    sampled = tokens if max_sequences is None else min(tokens, max_sequences)
    shards = pool.tensor_parallel
    length = spec.context_length if max_length is None else max_length
    attention = max(
        activation_bytes * tokens * layer.activations
        + attention_space(
            layer,
            pool.device,
            activation_bytes=activation_bytes,
            num_tokens=tokens,
            num_sequences=sampled,
            length=length,
        )
        for layer in (shard(layer, shards) for layer, _ in spec.attention_layers)
    )
    dense = tokens * 3 * -(-spec.mlp.dense_width // shards) * (spec.num_dense_layers > 0)
    phases = (
        attention,
        activation_bytes * dense,
        activation_bytes * _expert_elements(spec, plan, rank, tokens, max_tokens_per_step),
        sampled * spec.vocab_size * LOGIT_BYTES,
    )
    hidden = activation_bytes * tokens * _HIDDEN_COPIES * spec.hidden_size
    states = sampled * _STATE_BYTES * -(-spec.state_elements // shards)
    return hidden + states + max(phases)


def _expert_elements(
    spec: ModelSpec, plan: Plan, rank: int, tokens: int, max_tokens_per_step: int
) -> int:
    """A row in and out of each expert, its gate, up and product; home copies of each row."""
    rows = expected_rows(spec, plan, rank, max_tokens_per_step)
    received = rows * (2 * spec.hidden_size + 3 * spec.mlp.expert_width)
    at_home = tokens * 2 * spec.num_experts_per_token * spec.hidden_size
    shared = -(-spec.mlp.shared_width // plan.pool_of(rank).tensor_parallel)
    return received + at_home + tokens * 3 * shared


def expected_rows(spec: ModelSpec, plan: Plan, rank: int, max_tokens_per_step: int) -> int:
    """(token, expert) rows that reach a rank in its fullest layer, when all experts are equally
    popular and every attention group of its EP group has `max_tokens_per_step`."""
    if not plan.layers:
        return 0
    share = max(sum(layer.weights[rank]) for layer in plan.layers.values()) / spec.num_experts
    group = plan.ep_group_of(rank)
    num_senders = sum(
        len(pool.ranks) // (pool.num_ep_groups * pool.tensor_parallel)
        for pool in plan.pools
        if pool.role != "experts" and pool.is_in(group)
    )
    rows = num_senders * max_tokens_per_step * spec.num_experts_per_token
    return round(rows * share)
