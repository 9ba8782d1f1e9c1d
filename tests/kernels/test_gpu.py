"""The portable ops on a GPU against the same on the CPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from moe_kernels.ops import Ops
from moe_kernels.paged import PagedTokens
from moe_kernels.table import select_ops

Random = Callable[..., torch.Tensor]
Chunked = Callable[..., Any]
STARTS, LENGTHS, MEMBERS = [40, 11, 0], [41, 12, 60], [[0, 1], [2]]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="there is no GPU"),
]


@pytest.fixture(params=[False, True], ids=["reference", "deterministic"])
def ops(request: pytest.FixtureRequest) -> Ops:
    return select_ops("cuda", "float32", request.param, reference=not request.param)


def on_gpu(paged: PagedTokens) -> PagedTokens:
    groups = tuple(
        replace(
            group,
            token_SQ=group.token_SQ.cuda(),
            position_SQ=group.position_SQ.cuda(),
            pages_SP=group.pages_SP.cuda(),
            length_S=group.length_S.cuda(),
        )
        for group in paged.groups
    )
    return replace(paged, slot_T=paged.slot_T.cuda(), groups=groups)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.is_cuda
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_products_and_norm(random_tensor: Random, ops: Ops) -> None:
    cpu = select_ops("cpu", "float32", reference=True)
    x, weight, scale = random_tensor(21, 64), random_tensor(96, 64), random_tensor(64)
    gate_up, down = random_tensor(3, 96, 64), random_tensor(3, 64, 48)
    counts = torch.tensor([4, 0, 17])
    packed = ops.linear.prepare(weight.cuda())
    assert_same(ops.linear(x.cuda(), packed), cpu.linear(x, weight))
    experts = ops.experts.prepare(gate_up.cuda(), down.cuda())
    expected = cpu.experts(x, counts, (gate_up, down))
    assert_same(ops.experts(x.cuda(), counts, experts), expected)
    assert_same(ops.rms_norm(x.cuda(), scale.cuda(), 1e-6), cpu.rms_norm(x, scale, 1e-6))


def test_attention(random_tensor: Random, chunked: Chunked, ops: Ops) -> None:
    cpu = select_ops("cpu", "float32", reference=True)
    step = chunked(
        tuple(random_tensor(n, 2, 32) for n in LENGTHS), STARTS, LENGTHS, MEMBERS, page_size=16
    )
    q = step.queries([random_tensor(n, 8, 32) for n in LENGTHS])
    pages, paged = step.pages(), step.paged()
    keys, elsewhere = pages.cuda(), on_gpu(paged)
    expected = cpu.attention(q, pages, pages, paged, 0.2)
    assert_same(ops.attention(q.cuda(), keys, keys, elsewhere, 0.2), expected)
    latent, there = pages[:, :, 0], keys[:, :, 0]
    expected = cpu.latent_attention(q, latent, paged, 0.2, 20)
    assert_same(ops.latent_attention(q.cuda(), there, elsewhere, 0.2, 20), expected)


def test_tiles_on_a_gpu_do_not_depend_on_the_batch(random_tensor: Random) -> None:
    ops = select_ops("cuda", "bfloat16", deterministic=True)
    packed = ops.linear.prepare(random_tensor(320, 576, dtype=torch.bfloat16).cuda())
    x = random_tensor(40, 576, dtype=torch.bfloat16).cuda()
    together = ops.linear(x, packed)
    alone = torch.cat([ops.linear(x[row : row + 1], packed) for row in range(40)])
    assert torch.equal(together, alone)
