"""Experts that were packed apart compute what they do packed together."""

import pytest
import torch
from moe_kernels.table import select_ops


@pytest.mark.parametrize("weight_format", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", ["cpu", "elsewhere"])
def test_gathered_experts_are_those_packed_together(
    kind: str, deterministic: bool, weight_format: str
) -> None:
    dtype = "bfloat16" if weight_format == "bfloat16" else "float32"
    op = select_ops(kind, weight_format, deterministic=deterministic, dtype=dtype).experts
    generator = torch.Generator().manual_seed(0)
    gate_up_E2FD = torch.randn(4, 64, 48, generator=generator).to(getattr(torch, dtype))
    down_EDF = torch.randn(4, 48, 32, generator=generator).to(getattr(torch, dtype))
    rows_RD = torch.randn(12, 48, generator=generator).to(getattr(torch, dtype))
    counts_E = torch.tensor([3, 0, 9])
    together = op.prepare(gate_up_E2FD, down_EDF)
    alone = op.prepare(gate_up_E2FD[2:3], down_EDF[2:3])
    gathered = op.gather([(alone, 0), (together, 0), (together, 3)])
    order = torch.tensor([2, 0, 3])
    expected = op(rows_RD, counts_E, op.prepare(gate_up_E2FD[order], down_EDF[order]))
    assert torch.equal(op(rows_RD, counts_E, gathered), expected)
    assert not torch.equal(op(rows_RD, counts_E, op.gather([(together, 1)] * 3)), expected)
