"""Attention of the oracle: gather each sequence's pages, mask, softmax in float32.

A block of sequences and queries at a time, see `blocks.py`: the loops are over blocks of bounded
bytes, and end up with one sequence or one query each only where that alone fills a block.

Shape legend: S sequences of a block, Q queries of each (padded), L tokens of the longest, H query
heads, G key-value heads, d head width, v value width, c latent width, P pages.
"""

import torch

from moe_kernels.blocks import AttentionBytes, query_blocks, sequence_blocks
from moe_kernels.paged import AttentionGroup, PagedTokens

BLOCK_BYTES = 256 << 20


class ReferenceAttention:
    """Scaled dot-product attention with grouped queries (arXiv:2305.13245) over paged keys.

    Args:
        block_bytes: the most that the gathered keys and values of a block take, and the most
            that its queries and their scores take; priced by the planner.
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes

    def __call__(
        self,
        q_THd: torch.Tensor,
        keys_PSHd: torch.Tensor,
        values_PSHv: torch.Tensor,
        paged: PagedTokens,
        scale: float,
    ) -> torch.Tensor:
        num_tokens, num_heads, _ = q_THd.shape
        out = padded_output(q_THd, values_PSHv.shape[-1])
        cost = attention_bytes(q_THd, values_PSHv.shape[-1], keys_PSHd, values_PSHv)
        for sequences in sequence_blocks(paged, cost, self._block_bytes, self._block_bytes):
            keys = gather_pages(keys_PSHd, sequences, paged.page_size)
            values = gather_pages(values_PSHv, sequences, paged.page_size)
            for block in query_blocks(sequences, cost, self._block_bytes):
                queries = torch.unflatten(q_THd[block.token_SQ], 2, (keys.shape[2], -1))
                scores = torch.einsum("sqgnd,slgd->sgnql", queries, keys).float().mul_(scale)
                weights = masked_softmax(scores, visible(block)[:, None, None]).to(values.dtype)
                attended = torch.einsum("sgnql,slgv->sqgnv", weights, values)
                out[output_rows(block, num_tokens)] = attended.reshape(
                    *block.token_SQ.shape, num_heads, -1
                )
        return out[:num_tokens]


class ReferenceLatentAttention:
    """Multi-head latent attention with absorbed weights (DeepSeek-V2, arXiv:2405.04434).

    Args:
        block_bytes: as in ReferenceAttention.
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes

    def __call__(
        self,
        q_THc: torch.Tensor,
        latent_PSc: torch.Tensor,
        paged: PagedTokens,
        scale: float,
        value_width: int,
    ) -> torch.Tensor:
        num_tokens = q_THc.shape[0]
        out = padded_output(q_THc, value_width)
        cost = attention_bytes(q_THc, value_width, latent_PSc)
        for sequences in sequence_blocks(paged, cost, self._block_bytes, self._block_bytes):
            latent = gather_pages(latent_PSc, sequences, paged.page_size)
            for block in query_blocks(sequences, cost, self._block_bytes):
                queries = q_THc[block.token_SQ]
                scores = torch.einsum("sqhc,slc->shql", queries, latent).float().mul_(scale)
                weights = masked_softmax(scores, visible(block)[:, None]).to(latent.dtype)
                attended = torch.einsum("shql,slv->sqhv", weights, latent[..., :value_width])
                out[output_rows(block, num_tokens)] = attended
        return out[:num_tokens]


def attention_bytes(
    q_THd: torch.Tensor, value_width: int, *caches_PSx: torch.Tensor
) -> AttentionBytes:
    """What these queries hold over these caches."""
    num_heads, width = q_THd.shape[1:]
    return AttentionBytes(
        cached_token=sum(cache[0, 0].numel() * cache.element_size() for cache in caches_PSx),
        query_row=num_heads * (width + value_width) * q_THd.element_size(),
        num_heads=num_heads,
    )


def gather_pages(cache_PSx: torch.Tensor, group: AttentionGroup, page_size: int) -> torch.Tensor:
    """Each sequence's tokens in order -> [S, L, ...]; zero past the sequence's own length,
    so that whatever stale numbers a page holds, NaN included, cannot leak into a sum."""
    num_pages = -(-group.max_length // page_size)
    gathered = cache_PSx[group.pages_SP[:, :num_pages]].flatten(1, 2)[:, : group.max_length]
    stale_SL = cached_positions(group) >= group.length_S[:, None]
    return gathered.masked_fill_(stale_SL.view(*stale_SL.shape, *[1] * (gathered.ndim - 2)), 0)


def cached_positions(group: AttentionGroup) -> torch.Tensor:
    return torch.arange(group.max_length, device=group.length_S.device)


def visible(group: AttentionGroup) -> torch.Tensor:
    """Which keys each query sees -> bool [S, Q, L]. A padding query sees the first key, so that
    its softmax is a number; nobody reads it."""
    return cached_positions(group) <= group.position_SQ.clamp(min=0)[..., None]


def masked_softmax(scores: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Over the visible scores; the others are lost, so that there is one copy less."""
    return scores.masked_fill_(~visible, float("-inf")).softmax(dim=-1)


def padded_output(q_THd: torch.Tensor, width: int) -> torch.Tensor:
    """Room for every token's result and one more row, where padding queries are thrown."""
    return q_THd.new_empty(q_THd.shape[0] + 1, q_THd.shape[1], width)


def output_rows(group: AttentionGroup, num_tokens: int) -> torch.Tensor:
    """Row of the padded output that each query writes -> int64 [S, Q]."""
    return torch.where(group.position_SQ < 0, num_tokens, group.token_SQ)
