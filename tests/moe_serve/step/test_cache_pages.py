"""Caches whose pages take memory only while they hold something."""

import pytest
import torch

from moe_serve.layers.context import CacheSpec, GroupedCache, GroupedCacheSpec, LatentCacheSpec
from moe_serve.step.cache import _runs, allocate_cache, allocate_lending_cache, page_bytes

SPECS: list[CacheSpec] = [GroupedCacheSpec(2, 24), LatentCacheSpec(80), GroupedCacheSpec(1, 64)]


def test_a_lending_cache_is_like_any_other() -> None:
    arguments = (SPECS, 12, 16, torch.bfloat16)
    lending, plain = (
        allocate_lending_cache(*arguments),
        allocate_cache(*arguments, torch.device("cpu")),
    )
    assert [type(layer) for layer in lending.layers] == [type(layer) for layer in plain]
    first, other = lending.layers[0], plain[0]
    assert isinstance(first, GroupedCache) and isinstance(other, GroupedCache)
    assert first.keys_PSHd.shape == other.keys_PSHd.shape == (12, 16, 2, 24)
    assert first.keys_PSHd.data_ptr() != first.values_PSHv.data_ptr()
    num_bytes = sum(each.tensor.nbytes for each in lending.tensors)
    assert len(lending.tensors) == 5 and num_bytes == 12 * page_bytes(
        *arguments[:1], *arguments[2:]
    )


@pytest.mark.parametrize("page_ids", [[3], [7, 2, 3, 4, 11, 0], list(range(12))])
def test_discarded_pages_are_zeros_in_all_layers(page_ids: list[int]) -> None:
    cache = allocate_lending_cache(SPECS, 12, 16, torch.bfloat16)
    for each in cache.tensors:
        each.tensor.fill_(3.0)
    cache.discard(page_ids)
    kept = [page_id for page_id in range(12) if page_id not in page_ids]
    for each in cache.tensors:
        assert not each.tensor[page_ids].any() and bool((each.tensor[kept] == 3.0).all())


def test_adjacent_pages_are_given_back_together() -> None:
    assert list(_runs([0, 1, 2, 5, 7, 8])) == [(0, 3), (5, 6), (7, 9)]
    assert list(_runs([])) == []
