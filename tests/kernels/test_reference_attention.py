"""The oracle's paged attention against dense attention of each sequence in float64."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from moe_kernels.paged import PagedTokens
from moe_kernels.reference_attention import ReferenceAttention, ReferenceLatentAttention

Random = Callable[..., torch.Tensor]
Chunked = Callable[..., Any]
NUM_HEADS, NUM_KEY_HEADS, WIDTH, VALUE_WIDTH = 6, 2, 8, 5
STEPS: list[tuple[Sequence[int], Sequence[int], Sequence[Sequence[int]]]] = [
    ([0, 0], [1, 9], [[0, 1]]),
    ([4, 11, 0], [5, 12, 6], [[0, 1], [2]]),
    ([8, 3, 0, 15], [13, 4, 1, 16], [[1, 2, 3], [0]]),
]


def dense_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int
) -> torch.Tensor:
    """Heads in front; queries at positions start, start + 1, ..."""
    scores = q.double() @ keys.double().mT / math.sqrt(q.shape[-1])
    future = torch.ones_like(scores, dtype=torch.bool).triu(start + 1)
    return (scores.masked_fill(future, -math.inf).softmax(-1) @ values.double()).float()


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize(("starts", "lengths", "members"), STEPS)
def test_attention_equals_dense_attention(
    random_tensor: Random,
    chunked: Chunked,
    starts: Sequence[int],
    lengths: Sequence[int],
    members: Sequence[Sequence[int]],
    page_size: int,
) -> None:
    queries = [random_tensor(length, NUM_HEADS, WIDTH) for length in lengths]
    keys = [random_tensor(length, NUM_KEY_HEADS, WIDTH) for length in lengths]
    values = [random_tensor(length, NUM_KEY_HEADS, VALUE_WIDTH) for length in lengths]
    key_step = chunked(tuple(keys), starts, lengths, members, page_size, stale=math.nan)
    value_step = chunked(tuple(values), starts, lengths, members, page_size, stale=math.nan)
    out = ReferenceAttention()(
        key_step.queries(queries),
        key_step.pages(),
        value_step.pages(),
        key_step.paged(),
        1 / math.sqrt(WIDTH),
    )
    repeat = NUM_HEADS // NUM_KEY_HEADS
    expected = [
        dense_attention(
            queries[s][starts[s] :].transpose(0, 1),
            keys[s].transpose(0, 1).repeat_interleave(repeat, 0),
            values[s].transpose(0, 1).repeat_interleave(repeat, 0),
            starts[s],
        ).transpose(0, 1)
        for group in members
        for s in group
    ]
    torch.testing.assert_close(out, torch.cat(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("starts", "lengths", "members"), STEPS)
def test_latent_attention_equals_dense_attention(
    random_tensor: Random,
    chunked: Chunked,
    starts: Sequence[int],
    lengths: Sequence[int],
    members: Sequence[Sequence[int]],
) -> None:
    queries = [random_tensor(length, NUM_HEADS, WIDTH) for length in lengths]
    latents = [random_tensor(length, WIDTH) for length in lengths]
    step = chunked(tuple(latents), starts, lengths, members, stale=math.nan)
    out = ReferenceLatentAttention()(
        step.queries(queries), step.pages(), step.paged(), 1 / math.sqrt(WIDTH), VALUE_WIDTH
    )
    expected = [
        dense_attention(
            queries[s][starts[s] :].transpose(0, 1),
            latents[s].expand(NUM_HEADS, -1, -1),
            latents[s][:, :VALUE_WIDTH].expand(NUM_HEADS, -1, -1),
            starts[s],
        ).transpose(0, 1)
        for group in members
        for s in group
    ]
    torch.testing.assert_close(out, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_a_step_without_tokens_gives_no_rows(random_tensor: Random) -> None:
    nothing = PagedTokens(slot_T=torch.empty(0, dtype=torch.int64), groups=(), page_size=4)
    cache = random_tensor(2, 4, NUM_KEY_HEADS, WIDTH)
    out = ReferenceAttention()(random_tensor(0, NUM_HEADS, WIDTH), cache, cache, nothing, 1.0)
    assert out.shape == (0, NUM_HEADS, WIDTH)
    latent = ReferenceLatentAttention()(
        random_tensor(0, NUM_HEADS, WIDTH), random_tensor(2, 4, WIDTH), nothing, 1.0, VALUE_WIDTH
    )
    assert latent.shape == (0, NUM_HEADS, VALUE_WIDTH)
