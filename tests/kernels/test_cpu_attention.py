"""The blocked CPU attention against the reference."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from moe_kernels.cpu import attention
from moe_kernels.cpu.attention import BlockedAttention, BlockedLatentAttention
from moe_kernels.paged import PagedTokens
from moe_kernels.reference_attention import ReferenceAttention, ReferenceLatentAttention

Random = Callable[..., torch.Tensor]
Chunked = Callable[..., Any]
SCALE = 0.25
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 3e-3}
STEPS: list[tuple[Sequence[int], Sequence[int], Sequence[Sequence[int]]]] = [
    ([0, 0], [1, 90], [[0, 1]]),
    ([4, 11, 0], [5, 12, 6], [[0, 1], [2]]),
    ([700, 30, 0, 599], [701, 31, 200, 600], [[3, 1, 0], [2]]),
    ([130, 0, 640], [201, 66, 650], [[0, 1, 2]]),
]


@pytest.fixture(params=[1 << 10, attention.GATHER_BYTES])
def gather_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Few sequences a block, or all of them."""
    monkeypatch.setattr(attention, "GATHER_BYTES", request.param)
    return int(request.param)


@pytest.mark.usefixtures("gather_bytes")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("starts", "lengths", "members"), STEPS)
@pytest.mark.parametrize("value_width", [16, 5])
def test_grouped_queries(
    random_tensor: Random,
    chunked: Chunked,
    starts: Sequence[int],
    lengths: Sequence[int],
    members: Sequence[Sequence[int]],
    value_width: int,
    dtype: torch.dtype,
) -> None:
    keys = tuple(random_tensor(n, 2, 16, dtype=dtype) for n in lengths)
    values = tuple(random_tensor(n, 2, value_width, dtype=dtype) for n in lengths)
    step = chunked(keys, starts, lengths, members)
    q = step.queries([random_tensor(n, 6, 16, dtype=dtype) for n in lengths])
    arguments = (
        q,
        step.pages(),
        chunked(values, starts, lengths, members).pages(),
        step.paged(),
        SCALE,
    )
    tolerance = TOLERANCE[dtype]
    expected = ReferenceAttention()(*arguments)
    assert expected.isfinite().all()
    torch.testing.assert_close(
        BlockedAttention()(*arguments), expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.usefixtures("gather_bytes")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("starts", "lengths", "members"), STEPS)
def test_latent(
    random_tensor: Random,
    chunked: Chunked,
    starts: Sequence[int],
    lengths: Sequence[int],
    members: Sequence[Sequence[int]],
    dtype: torch.dtype,
) -> None:
    latents = tuple(random_tensor(n, 20, dtype=dtype) for n in lengths)
    step = chunked(latents, starts, lengths, members)
    q = step.queries([random_tensor(n, 6, 20, dtype=dtype) for n in lengths])
    arguments = (q, step.pages(), step.paged(), SCALE, 13)
    tolerance = TOLERANCE[dtype]
    expected = ReferenceLatentAttention()(*arguments)
    assert expected.isfinite().all()
    torch.testing.assert_close(
        BlockedLatentAttention()(*arguments), expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("num_queries", [1, 6])
def test_what_an_overflow_left_in_the_last_page_spoils_nothing(
    random_tensor: Random, chunked: Chunked, num_queries: int
) -> None:
    largest = torch.finfo(torch.float32).max
    keys, latents = random_tensor(21, 2, 16), random_tensor(21, 20)
    step = chunked((keys,), [21 - num_queries], [21], [[0]], stale=largest)
    arguments = random_tensor(num_queries, 6, 16), step.pages(), step.pages(), step.paged(), SCALE
    torch.testing.assert_close(BlockedAttention()(*arguments), ReferenceAttention()(*arguments))
    step = chunked((latents,), [21 - num_queries], [21], [[0]], stale=largest)
    given = random_tensor(num_queries, 6, 20), step.pages(), step.paged(), SCALE, 13
    expected = ReferenceLatentAttention()(*given)
    torch.testing.assert_close(BlockedLatentAttention()(*given), expected)


def test_a_lost_page_is_seen(random_tensor: Random, chunked: Chunked) -> None:
    step = chunked((random_tensor(40, 20),), [30], [40], [[0]])
    q, pages, op = random_tensor(10, 6, 20), step.pages(), BlockedLatentAttention()
    expected = ReferenceLatentAttention()(q, pages, step.paged(), SCALE, 13)
    step.tables[0][3] = step.tables[0][4]
    with pytest.raises(AssertionError):
        torch.testing.assert_close(op(q, pages, step.paged(), SCALE, 13), expected)


def test_a_step_without_tokens_gives_no_rows(random_tensor: Random) -> None:
    nothing = PagedTokens(slot_T=torch.empty(0, dtype=torch.int64), groups=(), page_size=4)
    cache = random_tensor(2, 4, 2, 16)
    out = BlockedAttention()(random_tensor(0, 6, 16), cache, cache, nothing, SCALE)
    assert out.shape == (0, 6, 16)
    latent = cache[:, :, 0]
    out = BlockedLatentAttention()(random_tensor(0, 6, 16), latent, nothing, SCALE, 13)
    assert out.shape == (0, 6, 13)
