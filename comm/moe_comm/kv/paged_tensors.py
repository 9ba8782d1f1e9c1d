"""Canonical parts out of, and into, paged caches of torch tensors, whatever their layout.

Shape legend: P pages, S page size, H heads, d width of a head, c latent with rotary key, T tokens.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch

from moe_comm.kv.block import Parts
from moe_comm.kv.number_types import Array

PagedParts: TypeAlias = tuple[torch.Tensor, torch.Tensor]


def latent_parts(latent_PSc: torch.Tensor, rotary_width: int) -> PagedParts:
    """Views of a latent cache's two parts, each with one head."""
    latent_PS1l, rotary_PS1r = latent_PSc.unsqueeze(2).tensor_split([-rotary_width], dim=-1)
    return latent_PS1l, rotary_PS1r


def read_block(pages: PagedParts, page_ids: Sequence[int], first: int, end: int) -> Parts:
    """Tokens [first, end) of a sequence, copied to the host.

    Args:
        pages: [P, S, H, d] each; caches in another layout as views with the dimensions in this
            order.
        page_ids: of the sequence, in order.
    """
    keys, values = (_read(each, page_ids, first, end) for each in pages)
    return keys, values


def write_block(
    pages: PagedParts, page_ids: Sequence[int], first_token: int, first_head: int, parts: Parts
) -> None:
    """Tokens from `first_token` on, and heads from `first_head` on, into a sequence's pages.

    Args:
        pages, page_ids: as in `read_block`.
        parts: in the cache's own type (bfloat16 as uint16).
    """
    for pages_PSHd, part in zip(pages, parts, strict=True):
        rows_THd = from_host(part, pages_PSHd.dtype).to(pages_PSHd.device)
        end = first_token + len(rows_THd)
        slots = _slots(page_ids, first_token, end, pages_PSHd)
        heads_PSHd = pages_PSHd.narrow(2, first_head, rows_THd.shape[1])
        heads_PSHd[slots] = rows_THd


def _read(pages_PSHd: torch.Tensor, page_ids: Sequence[int], first: int, end: int) -> Array:
    return to_host(pages_PSHd[_slots(page_ids, first, end, pages_PSHd)])


def to_host(rows: torch.Tensor) -> Array:
    """As numpy on the host; bfloat16 as uint16."""
    rows = rows.detach().cpu().contiguous()
    if rows.dtype == torch.bfloat16:
        return rows.view(torch.int16).numpy().view("<u2")
    array: Array = rows.numpy()
    return array


def from_host(part: Array, dtype: torch.dtype) -> torch.Tensor:
    """The tensor of which `to_host` makes this array."""
    if dtype == torch.bfloat16:
        return torch.from_numpy(part.view("<i2")).view(torch.bfloat16)
    rows = torch.from_numpy(part)
    assert rows.dtype == dtype
    return rows


def _slots(
    page_ids: Sequence[int], first: int, end: int, pages_PSHd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Page and place in it of each token."""
    page_size = pages_PSHd.shape[1]
    token_T = torch.arange(first, end)
    page_T = torch.tensor(page_ids, dtype=torch.int64)[token_T // page_size]
    device = pages_PSHd.device
    return page_T.to(device), (token_T % page_size).to(device)
