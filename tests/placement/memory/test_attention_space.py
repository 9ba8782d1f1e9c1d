"""Attention stays within what the planner prices for it, on steps of every shape."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from held_bytes import PeakBytes
from moe_kernels import blocks, reference_attention
from moe_kernels.cpu import attention as cpu_attention
from moe_kernels.paged import AttentionGroup, PagedTokens
from moe_placement.memory import attention_space as priced
from moe_placement.model.attention import AttentionSpec

PAGE = 16
WIDTH, LATENT = 64, 96
GROUPED = AttentionSpec(
    kind="grouped",
    parameters=0,
    kv_parameters=0,
    norms=0,
    kv_elements=2 * 2 * WIDTH,
    activations=0,
    num_heads=8,
    num_kv_heads=2,
    row_elements=2 * WIDTH,
    rotary_width=WIDTH,
    prefill_flops_per_pair=0,
    decode_flops_per_pair=0,
)
LATENT_SPEC = replace(
    GROUPED, kind="latent", kv_elements=LATENT, num_kv_heads=1, row_elements=LATENT + WIDTH
)
# Sequences, new tokens of each, and tokens of each in the cache.
SHAPES = [(1, 1, 4096), (3, 1, 1500), (40, 1, 300), (1, 512, 700), (2, 300, 2048), (64, 4, 30)]


def paged(num_sequences: int, num_queries: int, length: int) -> tuple[PagedTokens, int]:
    """All sequences alike, in one group; and how many pages there are."""
    num_pages = -(-length // PAGE)
    tokens = torch.arange(num_sequences * num_queries).view(num_sequences, num_queries)
    positions = torch.arange(length - num_queries, length).expand(num_sequences, -1)
    pages = torch.arange(num_sequences * num_pages).view(num_sequences, num_pages)
    lengths = torch.full((num_sequences,), length)
    group = AttentionGroup(tokens, positions, pages, lengths, length)
    return PagedTokens(tokens.flatten(), (group,), PAGE), num_sequences * num_pages


@pytest.fixture(params=["cpu", "cuda"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Grouped and latent attention of a kind of device, with bounds that small steps meet."""
    size = 1 << 20
    on_host = request.param == "cpu"
    block = priced.AttentionBlock(gathered=2 * size if on_host else size, queries=size)
    monkeypatch.setattr(priced, "attention_block", lambda device: block)
    if on_host:
        monkeypatch.setattr(cpu_attention, "GATHER_BYTES", size)
        monkeypatch.setattr(cpu_attention, "BLOCK_BYTES", size)
        return cpu_attention.BlockedAttention(), cpu_attention.BlockedLatentAttention()
    return (
        reference_attention.ReferenceAttention(size),
        reference_attention.ReferenceLatentAttention(size),
    )


def price(spec: AttentionSpec, shape: tuple[int, int, int], dtype: torch.dtype) -> int:
    num_sequences, num_queries, length = shape
    return priced.attention_space(
        spec,
        "any",
        activation_bytes=dtype.itemsize,
        num_tokens=num_sequences * num_queries,
        num_sequences=num_sequences,
        length=-(-length // PAGE) * PAGE,
    )


def peak(compute: Callable[[], torch.Tensor], *inputs: torch.Tensor) -> int:
    """Bytes held beside the inputs and the result."""
    with PeakBytes(*inputs) as held:
        result = compute()
    return held.peak - result.numel() * result.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_grouped_attention(kernels: Any, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    step, num_pages = paged(*shape)
    q = torch.ones(shape[0] * shape[1], 8, WIDTH, dtype=dtype)
    cache = torch.ones(num_pages, PAGE, 2, WIDTH, dtype=dtype)
    held = peak(lambda: kernels[0](q, cache, cache, step, 0.1), q, cache)
    assert 0 < held <= price(GROUPED, shape, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_latent_attention(kernels: Any, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    step, num_pages = paged(*shape)
    q = torch.ones(shape[0] * shape[1], 8, LATENT, dtype=dtype)
    cache = torch.ones(num_pages, PAGE, LATENT, dtype=dtype)
    held = peak(lambda: kernels[1](q, cache, step, 0.1, WIDTH), q, cache)
    assert 0 < held <= price(LATENT_SPEC, shape, dtype)


def test_an_unbounded_kernel_would_be_seen() -> None:
    shape = (2, 300, 2048)
    step, num_pages = paged(*shape)
    q, cache = torch.ones(600, 8, LATENT), torch.ones(num_pages, PAGE, LATENT)
    op = reference_attention.ReferenceLatentAttention(1 << 40)
    bounded = priced.AttentionBlock(gathered=2 << 20, queries=1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(priced, "attention_block", lambda device: bounded)
        limit = price(LATENT_SPEC, shape, torch.float32)
    assert peak(lambda: op(q, cache, step, 0.1, WIDTH), q, cache) > 2 * limit


def test_the_priced_bounds_are_those_of_the_kernels() -> None:
    assert (priced.SCORE_BYTES, priced.ROW_COPIES) == (blocks.SCORE_BYTES, blocks.ROW_COPIES)
    anywhere, host = priced.attention_block("cuda"), priced.attention_block("cpu")
    assert anywhere.gathered == anywhere.queries == reference_attention.BLOCK_BYTES
    assert host.gathered == 2 * cpu_attention.GATHER_BYTES
    assert host.queries == cpu_attention.BLOCK_BYTES


def test_deepseek_at_its_context_is_bounded(
    shipped_config: Callable[[str], dict[str, Any]],
) -> None:
    from moe_placement.model.spec import ModelSpec

    attention = ModelSpec.from_config(shipped_config("deepseek_v3")).attention
    options = {"activation_bytes": 2, "num_sequences": 256, "length": 32768}
    few, many = (
        priced.attention_space(attention, "cuda", num_tokens=tokens, **options)
        for tokens in (64, 8192)
    )
    assert few == many < 1 << 30
    assert priced.attention_space(attention, "cuda", num_tokens=0, **options) == 0
