"""The oracle's linear, experts and norm against the formulas in float64."""

from collections.abc import Callable

import pytest
import torch
from moe_kernels.reference import ReferenceExperts, ReferenceLinear, ReferenceRmsNorm

Random = Callable[..., torch.Tensor]


@pytest.mark.parametrize("num_tokens", [0, 1, 7])
def test_linear_adds_its_bias(random_tensor: Random, num_tokens: int) -> None:
    x, weight, bias = random_tensor(num_tokens, 5), random_tensor(3, 5), random_tensor(3)
    op = ReferenceLinear()
    expected = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(op(x, op.prepare(weight), bias), expected.float())
    torch.testing.assert_close(op(x, op.prepare(weight)), (expected - bias).float())


@pytest.mark.parametrize("counts", [[0, 0, 0], [2, 0, 3], [0, 1, 0], [4, 1, 1]])
def test_experts_treat_each_row_by_its_own_expert(random_tensor: Random, counts: list[int]) -> None:
    gate_up, down = random_tensor(3, 12, 5), random_tensor(3, 5, 6)
    rows = random_tensor(sum(counts), 5)
    op = ReferenceExperts()
    y = op(rows, torch.tensor(counts), op.prepare(gate_up, down))
    expert_of_row = [expert for expert, count in enumerate(counts) for _ in range(count)]
    assert y.shape == rows.shape
    for row, result, expert in zip(rows.double(), y, expert_of_row, strict=True):
        gate, up = (gate_up[expert].double() @ row).chunk(2)
        expected = down[expert].double() @ (gate * torch.sigmoid(gate) * up)
        torch.testing.assert_close(result, expected.float(), rtol=1e-5, atol=1e-5)


def test_norm_computes_in_float32_and_returns_the_dtype_it_got(random_tensor: Random) -> None:
    x, weight = random_tensor(4, 16).mul(100).bfloat16(), random_tensor(16).bfloat16()
    y = ReferenceRmsNorm()(x, weight, 1e-6)
    wide = x.double()
    normalised = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, weight * normalised.bfloat16())
    assert ReferenceRmsNorm()(x[:0], weight, 1e-6).shape == (0, 16)
