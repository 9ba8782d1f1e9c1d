"""Attention whose result for a query depends on its sequence alone, bit for bit.

Queries are taken 16 at a time, those whose positions share position // 16, each in the row
position % 16; a query that is not in this step leaves its row empty. They meet the keys of fixed
tiles of 128 positions from the start of the sequence. So every shape follows from the query's
position, and neither the chunk it came in, nor its neighbours, nor the pages matter. All in
float32.

Shape legend: T tokens, H query heads, G key-value heads, N tiles of keys, B rows of one tile and
key-value head (16 queries by H / G heads), d head width, v value width, L tokens of a sequence.
"""

from collections.abc import Iterator

import torch

from moe_kernels.paged import PagedTokens

QUERY_TILE = 16
KEY_TILE = 128


class TiledAttention:
    """Grouped-query attention; see the module."""

    def __call__(
        self,
        q_THd: torch.Tensor,
        keys_PSHd: torch.Tensor,
        values_PSHv: torch.Tensor,
        paged: PagedTokens,
        scale: float,
    ) -> torch.Tensor:
        out = q_THd.new_empty(q_THd.shape[0], q_THd.shape[1], values_PSHv.shape[-1])
        for pages, length, tiles in _sequences(paged):
            keys_NGLd = key_tiles(keys_PSHd[pages].flatten(0, 1)[:length])
            values_NGLv = key_tiles(values_PSHv[pages].flatten(0, 1)[:length])
            for tile, tokens in tiles.items():
                num_tiles = tile * QUERY_TILE // KEY_TILE + 1
                rows = torch.tensor([token for _, token in tokens], device=q_THd.device)
                places = torch.tensor([place for place, _ in tokens], device=q_THd.device)
                q_16Hd = q_THd.new_zeros(QUERY_TILE, *q_THd.shape[1:], dtype=torch.float32)
                q_16Hd[places] = q_THd[rows].float()
                attended = _attend(
                    q_16Hd, keys_NGLd[:num_tiles], values_NGLv[:num_tiles], tile, scale
                )
                out[rows] = attended[places].to(out.dtype)
        return out


class TiledLatentAttention:
    """Latent attention: grouped queries whose one key-value head is the latent."""

    def __init__(self) -> None:
        self._attention = TiledAttention()

    def __call__(
        self,
        q_THc: torch.Tensor,
        latent_PSc: torch.Tensor,
        paged: PagedTokens,
        scale: float,
        value_width: int,
    ) -> torch.Tensor:
        keys = latent_PSc[:, :, None]
        return self._attention(q_THc, keys, keys[..., :value_width], paged, scale)


def key_tiles(rows_LGd: torch.Tensor) -> torch.Tensor:
    """Keys or values in tiles of 128 positions, zeros past the end -> N G 128 d."""
    length, num_heads, width = rows_LGd.shape
    num_tiles = -(-length // KEY_TILE)
    filled = rows_LGd.new_zeros(num_tiles * KEY_TILE, num_heads, width, dtype=torch.float32)
    filled[:length] = rows_LGd
    return filled.view(num_tiles, KEY_TILE, num_heads, width).transpose(1, 2).contiguous()


def _sequences(
    paged: PagedTokens,
) -> Iterator[tuple[torch.Tensor, int, dict[int, list[tuple[int, int]]]]]:
    """Each sequence's pages, its length, and its queries by tile: (row in the tile, token)."""
    for group in paged.groups:
        lengths, positions, tokens = (
            tensor.tolist() for tensor in (group.length_S, group.position_SQ, group.token_SQ)
        )
        for sequence, length in enumerate(lengths):
            tiles: dict[int, list[tuple[int, int]]] = {}
            for position, token in zip(positions[sequence], tokens[sequence], strict=True):
                if position >= 0:
                    tile, place = divmod(position, QUERY_TILE)
                    tiles.setdefault(tile, []).append((place, token))
            yield group.pages_SP[sequence, : -(-length // paged.page_size)], length, tiles


def _attend(
    q_16Hd: torch.Tensor,
    keys_NGLd: torch.Tensor,
    values_NGLv: torch.Tensor,
    tile: int,
    scale: float,
) -> torch.Tensor:
    """One tile of queries against all tiles of keys that it can see -> 16 H v."""
    num_tiles, num_groups, _, width = keys_NGLd.shape
    q_GBd = q_16Hd.view(QUERY_TILE, num_groups, -1, width).transpose(0, 1)
    q_NGBd = q_GBd.reshape(1, num_groups, -1, width).expand(num_tiles, -1, -1, -1)
    scores_NGBL = q_NGBd.contiguous() @ keys_NGLd.mT * scale
    key = torch.arange(num_tiles * KEY_TILE, device=q_16Hd.device).view(num_tiles, 1, 1, 1, -1)
    query = torch.arange(QUERY_TILE, device=q_16Hd.device).view(-1, 1, 1) + tile * QUERY_TILE
    scores = torch.unflatten(scores_NGBL, 2, (QUERY_TILE, -1)).masked_fill(
        key > query, float("-inf")
    )
    scores_GBNL = scores.flatten(2, 3).permute(1, 2, 0, 3)
    weights = scores_GBNL.flatten(2).softmax(-1).view(scores_GBNL.shape).permute(2, 0, 1, 3)
    o_GBv = (weights.contiguous() @ values_NGLv).sum(0)
    return o_GBv.view(num_groups, QUERY_TILE, -1, o_GBv.shape[-1]).transpose(0, 1).flatten(1, 2)
