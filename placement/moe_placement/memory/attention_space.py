"""What attention holds while it computes, by the bounds that its kernels keep."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from moe_placement.model.attention import AttentionSpec


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Bytes that the kernels of a kind of device keep a block of attention within.

    Attributes:
        gathered: keys and values, gathered from their pages.
        queries: queries, results, and scores in every form.
    """

    gathered: int
    queries: int


_ANY_DEVICE = AttentionBlock(gathered=256 << 20, queries=256 << 20)
# On a processor keys and values are gathered in 4 MiB each; emulated devices compute on one.
_PROCESSOR = AttentionBlock(gathered=8 << 20, queries=64 << 20)
ATTENTION_BLOCKS: Mapping[str, AttentionBlock] = MappingProxyType(
    {"cpu": _PROCESSOR, "emulated": _PROCESSOR}
)
# A float32 score, its rearranged copy, its softmax, that in the cache's dtype, and its masks.
SCORE_BYTES = 16
# A query and its result, each as it comes and as the product wants it.
ROW_COPIES = 2
# What is gathered, as it lies in the cache and as the product wants it.
_GATHERED_COPIES = 2
# Padding makes at most two queries of each.
_PADDED = 2


def attention_block(device: str) -> AttentionBlock:
    """The bounds of the kernels that run on a kind of device."""
    return ATTENTION_BLOCKS.get(device, _ANY_DEVICE)


def shard(attention: AttentionSpec, degree: int) -> AttentionSpec:
    """What one of `degree` ranks computes of a layer whose heads they share."""
    if degree == 1:
        return attention
    return replace(
        attention,
        num_heads=-(-attention.num_heads // degree),
        kv_elements=-(-attention.kv_elements // min(degree, attention.num_kv_heads)),
        activations=-(-attention.activations // degree),
    )


def attention_space(
    attention: AttentionSpec,
    device: str,
    *,
    activation_bytes: int,
    num_tokens: int,
    num_sequences: int,
    length: int,
) -> int:
    """The most bytes of a step of so many tokens, none of whose sequences is longer than `length`.

    A block never gets smaller than one sequence's keys and values, and one query's scores over
    all of them. Kernels whose bits do not depend on the batch (`deterministic: true`) hold more:
    they are made for comparing, and not priced.

    Args:
        device: cpu, cuda, npu.
        length: of the longest context, in whole pages.
    """
    if num_tokens == 0 or attention.kind == "linear":
        return 0
    block = attention_block(device)
    sequence = length * attention.kv_elements * activation_bytes
    rows = ROW_COPIES * attention.row_elements * activation_bytes
    query = attention.num_heads * (SCORE_BYTES * length + rows)
    gathered = min(num_sequences * sequence, max(block.gathered, sequence))
    queries = min(_PADDED * num_tokens * query, max(block.queries, query))
    return _GATHERED_COPIES * gathered + queries
