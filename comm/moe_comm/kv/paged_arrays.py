"""A paged KV cache in numpy, in either of the two usual layouts: a model of an engine's own.

Shape legend: P pages, S page size, H heads, d width of a head.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from moe_comm.kv.block import Parts
from moe_comm.kv.hello import Hello
from moe_comm.kv.number_types import Array, dtype_of

Layout: TypeAlias = Literal["PSHd", "PHSd"]


class PagedArrays:
    """All layers of one rank, as its hello declares them.

    Args:
        layout: of the memory: tokens of a page before heads, or heads before tokens.
    """

    def __init__(self, hello: Hello, num_pages: int, layout: Layout) -> None:
        dtype = dtype_of(hello.cache_type)
        self.page_size = hello.page_size
        self._free = list(range(num_pages))
        self._layers: list[Parts] = []
        for layer in hello.layers:
            heads = layer.end_head - layer.first_head
            first, second = (
                _empty((num_pages, hello.page_size, heads, width), layout, dtype)
                for width in layer.widths
            )
            self._layers.append((first, second))

    def take(self, num_tokens: int) -> tuple[int, ...] | None:
        """Pages for so many tokens, the last ones freed first; None if there are too few."""
        num_pages = -(-num_tokens // self.page_size)
        if num_pages > len(self._free):
            return None
        return tuple(self._free.pop() for _ in range(num_pages))

    def give_back(self, page_ids: Sequence[int]) -> None:
        self._free.extend(page_ids)

    def read(self, page_ids: Sequence[int], layer: int, first: int, end: int) -> Parts:
        slots = self._slots(page_ids, first, end)
        keys_PSHd, values_PSHd = self._layers[layer]
        return keys_PSHd[slots], values_PSHd[slots]

    def write(
        self, page_ids: Sequence[int], layer: int, first: int, first_head: int, parts: Parts
    ) -> None:
        for pages_PSHd, part_THd in zip(self._layers[layer], parts, strict=True):
            slots = self._slots(page_ids, first, first + len(part_THd))
            end_head = first_head + part_THd.shape[1]
            pages_PSHd[(*slots, slice(first_head, end_head))] = part_THd

    def _slots(self, page_ids: Sequence[int], first: int, end: int) -> tuple[Array, Array]:
        token_T = np.arange(first, end)
        page_T = np.array(page_ids, np.int64)[token_T // self.page_size]
        return page_T, token_T % self.page_size


def _empty(shape: tuple[int, ...], layout: Layout, dtype: np.dtype[np.generic]) -> Array:
    """Indexed [page, place, head, number] whatever the layout."""
    if layout == "PSHd":
        return np.zeros(shape, dtype)
    pages, size, heads, width = shape
    return np.zeros((pages, heads, size, width), dtype).swapaxes(1, 2)
