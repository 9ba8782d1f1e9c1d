"""Attention of the oracle: gather each sequence's pages, mask, softmax in float32.

Shape legend: S sequences of a group, Q queries of each (padded), L tokens of the longest, H query
heads, G key-value heads, d head width, v value width, c latent width, P pages.
"""

import torch

from moe_kernels.paged import AttentionGroup, PagedTokens


class ReferenceAttention:
    """Scaled dot-product attention with grouped queries (arXiv:2305.13245) over paged keys."""

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
        for group in paged.groups:
            keys = gather_pages(keys_PSHd, group, paged.page_size)
            values = gather_pages(values_PSHv, group, paged.page_size)
            queries = torch.unflatten(q_THd[group.token_SQ], 2, (keys.shape[2], -1))
            scores = torch.einsum("sqgnd,slgd->sgnql", queries, keys).float() * scale
            weights = masked_softmax(scores, visible(group)[:, None, None]).to(values.dtype)
            attended = torch.einsum("sgnql,slgv->sqgnv", weights, values)
            out[output_rows(group, num_tokens)] = attended.reshape(
                *group.token_SQ.shape, num_heads, -1
            )
        return out[:num_tokens]


class ReferenceLatentAttention:
    """Multi-head latent attention with absorbed weights (DeepSeek-V2, arXiv:2405.04434)."""

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
        for group in paged.groups:
            latent = gather_pages(latent_PSc, group, paged.page_size)
            scores = torch.einsum("sqhc,slc->shql", q_THc[group.token_SQ], latent).float() * scale
            weights = masked_softmax(scores, visible(group)[:, None]).to(latent.dtype)
            attended = torch.einsum("shql,slv->sqhv", weights, latent[..., :value_width])
            out[output_rows(group, num_tokens)] = attended
        return out[:num_tokens]


def gather_pages(cache_PSx: torch.Tensor, group: AttentionGroup, page_size: int) -> torch.Tensor:
    """Each sequence's tokens in order -> [S, L, ...]; zero past the sequence's own length,
    so that whatever stale numbers a page holds, NaN included, cannot leak into a sum."""
    num_pages = -(-group.max_length // page_size)
    gathered = cache_PSx[group.pages_SP[:, :num_pages]].flatten(1, 2)[:, : group.max_length]
    written_SL = cached_positions(group) < group.length_S[:, None]
    return gathered.masked_fill(~written_SL.view(*written_SL.shape, *[1] * (gathered.ndim - 2)), 0)


def cached_positions(group: AttentionGroup) -> torch.Tensor:
    return torch.arange(group.max_length, device=group.length_S.device)


def visible(group: AttentionGroup) -> torch.Tensor:
    """Which keys each query sees -> bool [S, Q, L]. A padding query sees the first key, so that
    its softmax is a number; nobody reads it."""
    return cached_positions(group) <= group.position_SQ.clamp(min=0)[..., None]


def masked_softmax(scores: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)


def padded_output(q_THd: torch.Tensor, width: int) -> torch.Tensor:
    """Room for every token's result and one more row, where padding queries are thrown."""
    return q_THd.new_empty(q_THd.shape[0] + 1, q_THd.shape[1], width)


def output_rows(group: AttentionGroup, num_tokens: int) -> torch.Tensor:
    """Row of the padded output that each query writes -> int64 [S, Q]."""
    return torch.where(group.position_SQ < 0, num_tokens, group.token_SQ)
