"""A query's bits do not depend on the chunk it came in, its neighbours, or the pages."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from moe_kernels.deterministic_attention import TiledAttention, TiledLatentAttention
from moe_kernels.reference_attention import ReferenceAttention, ReferenceLatentAttention

Random = Callable[..., torch.Tensor]
Chunked = Callable[..., Any]
Spans = list[tuple[int, int, int]]
Attend = Callable[[Sequence[int], Sequence[int], list[list[int]], int], torch.Tensor]
LENGTHS = (1, 17, 150, 290)
SCALE = 0.3


@pytest.fixture(params=[1, 2])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=["grouped", "latent"])
def attend(
    request: pytest.FixtureRequest, random_tensor: Random, chunked: Chunked, dtype: torch.dtype
) -> Attend:
    """Attention of one step: (starts, ends, groups, page size) -> rows in the groups' order."""
    latent = request.param == "latent"
    heads = () if latent else (2,)
    queries = [random_tensor(n, 6, 24, dtype=dtype) for n in LENGTHS]
    keys = tuple(random_tensor(n, *heads, 24, dtype=dtype) for n in LENGTHS)
    values = tuple(random_tensor(n, *heads, 10, dtype=dtype) for n in LENGTHS)

    def one_step(
        starts: Sequence[int], ends: Sequence[int], members: list[list[int]], page_size: int
    ) -> torch.Tensor:
        step = chunked(keys, starts, ends, members, page_size, seed=page_size)
        q, pages, paged = step.queries(queries), step.pages(), step.paged()
        if latent:
            return TiledLatentAttention()(q, pages, paged, SCALE, 10)
        value_pages = chunked(values, starts, ends, members, page_size, seed=page_size).pages()
        return TiledAttention()(q, pages, value_pages, paged, SCALE)

    return one_step


def whole(attend: Attend) -> list[torch.Tensor]:
    """Each sequence alone, all of it in one chunk."""
    return [
        attend([0] * len(LENGTHS), LENGTHS, [[sequence]], 16) for sequence in range(len(LENGTHS))
    ]


def test_any_chunks_in_any_company_give_the_same_bits(attend: Attend, num_threads: int) -> None:
    expected = whole(attend)
    chooser = random.Random(5)
    for page_size in (1, 4, 7, 16, 64, 256):
        ends = [chooser.randint(1, length) for length in LENGTHS]
        starts = [chooser.choice([end - 1, chooser.randrange(end)]) for end in ends]
        order = chooser.sample(range(len(LENGTHS)), len(LENGTHS))
        cut = chooser.randint(1, 3)
        out = attend(starts, ends, [order[:cut], order[cut:]], page_size)
        mine = torch.cat([expected[s][starts[s] : ends[s]] for s in order])
        assert torch.equal(out, mine)


def test_token_by_token_gives_the_bits_of_one_prefill(attend: Attend) -> None:
    expected = whole(attend)[2]
    for position in (0, 1, 15, 16, 17, 100, 126, 127, 128, 129, 149):
        ends = [1, 1, position + 1, 1]
        out = attend([end - 1 for end in ends], ends, [[2]], 16)
        assert torch.equal(out, expected[position : position + 1])


def test_one_wrong_page_is_seen(random_tensor: Random, chunked: Chunked) -> None:
    step = chunked((random_tensor(150, 24),), [149], [150], [[0]])
    q, pages, op = random_tensor(1, 6, 24), step.pages(), TiledLatentAttention()
    right = op(q, pages, step.paged(), SCALE, 10)
    step.tables[0][3] = step.tables[0][4]
    assert not torch.equal(op(q, pages, step.paged(), SCALE, 10), right)


def test_tiles_compute_what_the_reference_computes(random_tensor: Random, chunked: Chunked) -> None:
    keys, values = ((random_tensor(150, 2, n), random_tensor(9, 2, n)) for n in (24, 10))
    starts, ends, members = [100, 8], [150, 9], [[1], [0]]
    step = chunked(keys, starts, ends, members)
    q, pages, paged = random_tensor(51, 6, 24), step.pages(), step.paged()
    value_pages = chunked(values, starts, ends, members).pages()
    torch.testing.assert_close(
        TiledAttention()(q, pages, value_pages, paged, SCALE),
        ReferenceAttention()(q, pages, value_pages, paged, SCALE),
    )
    latent = pages[:, :, 0]
    torch.testing.assert_close(
        TiledLatentAttention()(q, latent, paged, SCALE, 10),
        ReferenceLatentAttention()(q, latent, paged, SCALE, 10),
    )
