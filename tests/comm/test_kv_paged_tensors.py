"""Blocks out of and into paged torch caches of either layout."""

import numpy as np
import pytest
import torch
from kv_ends import grouped, random_parts
from moe_comm.kv.number_types import convert
from moe_comm.kv.paged_tensors import PagedParts, latent_parts, read_block, write_block

PAGE_IDS = (4, 0, 2)


def pages(page_size: int, is_swapped: bool, dtype: torch.dtype) -> PagedParts:
    """[pages, places, 4 heads, width], in memory perhaps heads before places."""
    keys, values = (
        torch.zeros(5, 4, page_size, width, dtype=dtype).transpose(1, 2)
        if is_swapped
        else torch.zeros(5, page_size, 4, width, dtype=dtype)
        for width in (8, 6)
    )
    return keys, values


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_swapped", [False, True])
def test_what_is_written_is_read_from_pages_of_another_size(
    dtype: torch.dtype, is_swapped: bool
) -> None:
    name = str(dtype).removeprefix("torch.")
    first, second = random_parts(grouped(), 11)
    parts = convert(first, "float32", name), convert(second, "float32", name)
    small, large = pages(4, is_swapped, dtype), pages(7, not is_swapped, dtype)
    write_block(small, PAGE_IDS, 1, 0, parts)
    between = read_block(small, PAGE_IDS, 3, 9)
    write_block(large, PAGE_IDS, 3, 0, between)
    back = read_block(large, PAGE_IDS, 3, 9)
    for part, landed in zip(parts, back, strict=True):
        assert landed.dtype == part.dtype
        assert np.array_equal(landed, part[2:8])
    assert torch.equal(large[0][0, 0, 2], small[0][0, 3, 2])  # token 7 of both


def test_some_heads_leave_the_others_and_other_pages_alone() -> None:
    cache = pages(4, False, torch.float32)
    first, second = random_parts(grouped(4, 1, 2), 5)
    write_block(cache, PAGE_IDS, 2, 2, (first, second))
    assert np.array_equal(read_block(cache, PAGE_IDS, 2, 7)[1][:, 2:], second)
    assert not cache[0][:, :, :2].any() and not cache[1][:, :, :2].any()
    assert not cache[0][[1, 2, 3]].any() and not cache[0][4, :2].any() and not cache[0][0, 3].any()


def test_a_latent_cache_is_two_parts() -> None:
    latent_PSc = torch.zeros(5, 4, 16)
    rows = np.random.default_rng(0).standard_normal((6, 1, 16), np.float32)
    write_block(latent_parts(latent_PSc, 4), PAGE_IDS, 0, 0, (rows[..., :12], rows[..., 12:]))
    assert np.array_equal(latent_PSc[4].numpy(), rows[:4, 0])
    assert np.array_equal(latent_PSc[0, :2].numpy(), rows[4:, 0])
    latent, rotary = read_block(latent_parts(latent_PSc, 4), PAGE_IDS, 1, 6)
    assert np.array_equal(np.concatenate((latent, rotary), -1), rows[1:])
