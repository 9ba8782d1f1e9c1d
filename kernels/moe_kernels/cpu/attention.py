"""Paged attention by torch's blocked softmax, a few sequences and queries at a time.

The heads that share a key-value head are laid along the queries, so that a key is read once for
all of them; gathers stay small enough for the cache and for memory that is used again; a block of
queries meets no keys beyond its own last position, but where products are oneDNN's, which compiles
each shape anew: those meet whole pages. The loops are over blocks of bounded bytes, not over
sequences: a block has one sequence only where that alone gathers GATHER_BYTES.

Shape legend: S sequences of a block, Q queries of each (padded), L tokens of the longest, H query
heads, G key-value heads, N heads of one key-value head, d head width, c latent width, v value
width, P pages.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch.nn import functional

from moe_kernels.blocks import AttentionBytes, query_blocks, sequence_blocks
from moe_kernels.paged import AttentionGroup, PagedTokens
from moe_kernels.reference_attention import (
    attention_bytes,
    masked_softmax,
    output_rows,
    padded_output,
    visible,
)

# Of keys, and as much of values.
GATHER_BYTES = 4 << 20
# Of queries and their scores.
BLOCK_BYTES = 64 << 20
QUERY_BLOCK = 64
# A single query meets fewer keys than this faster in two batched products.
LONG_CONTEXT = 512


class BlockedAttention:
    """Grouped-query attention; see the module."""

    def __call__(
        self,
        q_THd: torch.Tensor,
        keys_PSHd: torch.Tensor,
        values_PSHv: torch.Tensor,
        paged: PagedTokens,
        scale: float,
    ) -> torch.Tensor:
        value_width = values_PSHv.shape[-1]
        out = padded_output(q_THd, value_width)
        cost = attention_bytes(q_THd, value_width, keys_PSHd)
        for sequences in short_blocks(paged, cost):
            keys = _gather(keys_PSHd, sequences).transpose(1, 2)
            values = _gather(values_PSHv, sequences).transpose(1, 2)
            for block in short_query_blocks(sequences, cost):
                last = block.max_length
                q_SQHd = q_THd[block.token_SQ]
                attended = _grouped(q_SQHd, keys[:, :, :last], values[:, :, :last], block, scale)
                out[output_rows(block, q_THd.shape[0])] = attended
        return out[:-1]


class BlockedLatentAttention:
    """Multi-head latent attention with absorbed weights; see the module."""

    def __call__(
        self,
        q_THc: torch.Tensor,
        latent_PSc: torch.Tensor,
        paged: PagedTokens,
        scale: float,
        value_width: int,
    ) -> torch.Tensor:
        out = padded_output(q_THc, value_width)
        cost = attention_bytes(q_THc, value_width, latent_PSc)
        for sequences in short_blocks(paged, cost):
            latent_SLc = _gather(latent_PSc, sequences)
            for block in short_query_blocks(sequences, cost):
                q_SQHc = q_THc[block.token_SQ]
                if q_SQHc.shape[1] == 1 and block.max_length >= LONG_CONTEXT:
                    head = latent_SLc[:, None, : block.max_length]
                    attended = _grouped(q_SQHc, head, head, block, scale)[..., :value_width]
                else:
                    whole = _whole_pages(block, paged.page_size)
                    latent = latent_SLc[:, : whole.max_length]
                    attended = _latent(q_SQHc, latent, whole, scale, value_width)
                out[output_rows(block, q_THc.shape[0])] = attended
        return out[:-1]


def short_blocks(paged: PagedTokens, cost: AttentionBytes) -> Iterator[AttentionGroup]:
    """Blocks of sequences, each with pages up to its own longest sequence."""
    for block in sequence_blocks(paged, cost, GATHER_BYTES, BLOCK_BYTES):
        longest = int(block.length_S.max())
        num_pages = -(-longest // paged.page_size)
        yield replace(block, pages_SP=block.pages_SP[:, :num_pages], max_length=longest)


def short_query_blocks(group: AttentionGroup, cost: AttentionBytes) -> Iterator[AttentionGroup]:
    """Its queries, at most QUERY_BLOCK of each sequence at a time; max_length is what the block
    can see."""
    for block in query_blocks(group, cost, BLOCK_BYTES, QUERY_BLOCK):
        yield replace(block, max_length=max(1, int(block.position_SQ.max()) + 1))


def _whole_pages(block: AttentionGroup, page_size: int) -> AttentionGroup:
    """With all of the last page that it can see something of: the rest is masked."""
    return replace(block, max_length=-(-block.max_length // page_size) * page_size)


def _gather(cache_PSx: torch.Tensor, group: AttentionGroup) -> torch.Tensor:
    return cache_PSx[group.pages_SP].flatten(1, 2)


def _grouped(
    q_SQHd: torch.Tensor,
    keys_SGLd: torch.Tensor,
    values_SGLv: torch.Tensor,
    block: AttentionGroup,
    scale: float,
) -> torch.Tensor:
    num_sequences, num_queries, num_heads, width = q_SQHd.shape
    num_groups = keys_SGLd.shape[1]
    q_SQGNd = q_SQHd.view(num_sequences, num_queries, num_groups, -1, width)
    folded = q_SQGNd.permute(0, 2, 3, 1, 4).reshape(num_sequences, num_groups, -1, width)
    mask = visible(block)[:, None]
    if num_queries > 1:
        mask = mask.repeat(1, 1, num_heads // num_groups, 1)
    attended = functional.scaled_dot_product_attention(
        folded, keys_SGLd, values_SGLv, attn_mask=mask, scale=scale
    )
    o_SGNQv = attended.view(num_sequences, num_groups, -1, num_queries, attended.shape[-1])
    return o_SGNQv.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _latent(
    q_SQHc: torch.Tensor,
    latent_SLc: torch.Tensor,
    block: AttentionGroup,
    scale: float,
    value_width: int,
) -> torch.Tensor:
    num_sequences, num_queries, num_heads, width = q_SQHc.shape
    q_SBc = q_SQHc.view(num_sequences, num_queries * num_heads, width)
    scores = (q_SBc @ latent_SLc.mT).view(num_sequences, num_queries, num_heads, -1).float()
    weights = masked_softmax(scores.mul_(scale), visible(block)[:, :, None])
    weights_SBL = weights.to(latent_SLc.dtype).flatten(1, 2)
    attended = weights_SBL @ latent_SLc[..., :value_width]
    return attended.view(num_sequences, num_queries, num_heads, value_width)
