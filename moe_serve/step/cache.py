"""The paged KV cache of one rank: tensors by layer; who owns which page is the scheduler's."""

from collections.abc import Sequence

import torch

from moe_serve.layers.context import (
    CacheSpec,
    GroupedCache,
    LatentCache,
    LatentCacheSpec,
    LayerCache,
)


def allocate_cache(
    specs: Sequence[CacheSpec],
    num_pages: int,
    page_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[LayerCache, ...]:
    """Zeroed, so that what a masked position holds is always finite."""
    return tuple(_allocate(spec, num_pages, page_size, dtype, device) for spec in specs)


def _allocate(
    spec: CacheSpec, num_pages: int, page_size: int, dtype: torch.dtype, device: torch.device
) -> LayerCache:
    def zeros(*tail: int) -> torch.Tensor:
        return torch.zeros(num_pages, page_size, *tail, dtype=dtype, device=device)

    if isinstance(spec, LatentCacheSpec):
        return LatentCache(zeros(spec.latent_width))
    heads = (spec.num_kv_heads, spec.head_width)
    return GroupedCache(zeros(*heads), zeros(*heads))
