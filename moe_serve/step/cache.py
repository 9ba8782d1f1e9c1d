"""The paged KV cache of one rank: tensors by layer; who owns which page is the scheduler's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from moe_devices.resident import ResidentTensor

from moe_serve.layers.context import (
    CacheSpec,
    GroupedCache,
    LatentCache,
    LatentCacheSpec,
    LayerCache,
)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LendingCache:
    """A cache in the host's memory whose pages take memory only while they hold something."""

    layers: tuple[LayerCache, ...]
    tensors: tuple[ResidentTensor, ...]

    def discard(self, page_ids: Sequence[int]) -> None:
        """Make pages zeros, and give their memory back."""
        for first, end in _runs(sorted(page_ids)):
            for tensor in self.tensors:
                tensor.discard(first, end)


def allocate_cache(
    specs: Sequence[CacheSpec],
    num_pages: int,
    page_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[LayerCache, ...]:
    """Zeroed, so that what a masked position holds is always finite."""

    def zeros(tail: Shape) -> torch.Tensor:
        return torch.zeros(num_pages, page_size, *tail, dtype=dtype, device=device)

    return tuple(_layer(spec, zeros) for spec in specs)


def allocate_lending_cache(
    specs: Sequence[CacheSpec], num_pages: int, page_size: int, dtype: torch.dtype
) -> LendingCache:
    """The same on the host, where so many pages take no memory before they are written."""
    tensors: list[ResidentTensor] = []

    def zeros(tail: Shape) -> torch.Tensor:
        tensors.append(ResidentTensor((num_pages, page_size, *tail), dtype))
        return tensors[-1].tensor

    layers = tuple(_layer(spec, zeros) for spec in specs)
    return LendingCache(layers, tuple(tensors))


def page_bytes(specs: Sequence[CacheSpec], page_size: int, dtype: torch.dtype) -> int:
    """Of one page in all layers."""
    return sum(prod(tail) for spec in specs for tail in _tails(spec)) * page_size * dtype.itemsize


def _layer(spec: CacheSpec, zeros: Callable[[Shape], torch.Tensor]) -> LayerCache:
    tensors = [zeros(tail) for tail in _tails(spec)]
    return LatentCache(*tensors) if isinstance(spec, LatentCacheSpec) else GroupedCache(*tensors)


def _tails(spec: CacheSpec) -> list[Shape]:
    """What each tensor of a layer holds for one token."""
    if isinstance(spec, LatentCacheSpec):
        return [(spec.latent_width,)]
    return [(spec.num_kv_heads, spec.head_width)] * 2


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Adjacent ascending numbers as [first, end)."""
    first = end = -1
    for number in numbers:
        if number != end:
            if first < end:
                yield first, end
            first = number
        end = number + 1
    if first < end:
        yield first, end
