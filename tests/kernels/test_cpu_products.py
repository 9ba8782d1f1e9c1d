"""The packed CPU linear and experts against the reference, in every float format there is here."""

from collections.abc import Callable

import psutil
import pytest
import torch
from moe_kernels.formats import FLOAT_FORMATS
from moe_kernels.ops import Ops
from moe_kernels.reference import ReferenceExperts, ReferenceLinear
from moe_kernels.table import kernels, select_ops

Random = Callable[..., torch.Tensor]
FORMATS = sorted(
    {
        str(kernel.weight_format)
        for kernel in kernels()
        if kernel.device_kind == "cpu"
        and kernel.op == "linear"
        and kernel.weight_format in FLOAT_FORMATS
        and kernel.supports()
    }
)
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


@pytest.fixture(params=FORMATS)
def weight_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ops(weight_format: str) -> Ops:
    chosen = select_ops("cpu", weight_format)
    assert not isinstance(chosen.linear, ReferenceLinear)
    assert not isinstance(chosen.experts, ReferenceExperts)
    return chosen


def assert_near(actual: torch.Tensor, expected: torch.Tensor, weight_format: str) -> None:
    """Within the format's rounding of the largest number."""
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    if expected.numel():
        error = (actual.float() - expected.float()).abs().max()
        assert error <= TOLERANCE[weight_format] * expected.float().abs().max()


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 4, 7, 33, 300])
@pytest.mark.parametrize(("width_out", "width_in"), [(64, 128), (37, 50), (1, 16)])
def test_linear(
    random_tensor: Random,
    ops: Ops,
    weight_format: str,
    width_out: int,
    width_in: int,
    num_rows: int,
) -> None:
    dtype = getattr(torch, weight_format)
    weight, bias = random_tensor(width_out, width_in), random_tensor(width_out)
    x = random_tensor(num_rows, width_in)
    packed = ops.linear.prepare(weight.to(dtype))
    expected = ReferenceLinear()(x.to(dtype), weight.to(dtype), bias.to(dtype))
    assert_near(ops.linear(x.to(dtype), packed, bias.to(dtype)), expected, weight_format)
    expected = ReferenceLinear()(x.to(dtype), weight.to(dtype))
    assert_near(ops.linear(x.to(dtype), packed), expected, weight_format)
    spread = torch.stack([x, x], dim=2)[:, :, 0].to(dtype)
    assert_near(ops.linear(spread, packed), expected, weight_format)


def test_activations_may_be_wider_than_the_weight(
    random_tensor: Random, ops: Ops, weight_format: str
) -> None:
    weight = random_tensor(24, 32).to(getattr(torch, weight_format))
    x = random_tensor(5, 32)
    y = ops.linear(x, ops.linear.prepare(weight))
    assert_near(y, ReferenceLinear()(x, weight), weight_format)


@pytest.mark.parametrize(
    "counts",
    [
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [1, 0, 1, 1],
        [0, 5, 0, 1],
        [4, 4, 0, 9],
        [3, 1, 2, 1],
        [0, 0, 0, 40],
    ],
)
def test_experts(random_tensor: Random, ops: Ops, weight_format: str, counts: list[int]) -> None:
    dtype = getattr(torch, weight_format)
    gate_up = random_tensor(4, 48, 40).to(dtype)
    down = random_tensor(4, 40, 24).to(dtype)
    rows, counts_E = random_tensor(sum(counts), 40).to(dtype), torch.tensor(counts)
    expected = ReferenceExperts()(rows, counts_E, (gate_up, down))
    packed = ops.experts.prepare(gate_up, down)
    before = rows.clone()
    assert_near(ops.experts(rows, counts_E, packed), expected, weight_format)
    assert torch.equal(rows, before)


def test_a_swapped_expert_is_seen(random_tensor: Random, ops: Ops, weight_format: str) -> None:
    dtype = getattr(torch, weight_format)
    gate_up, down = random_tensor(2, 48, 40).to(dtype), random_tensor(2, 40, 24).to(dtype)
    rows, counts_E = random_tensor(7, 40).to(dtype), torch.tensor([3, 4])
    expected = ReferenceExperts()(rows, counts_E, (gate_up, down))
    swapped = ops.experts.prepare(gate_up.flip(0), down.flip(0))
    with pytest.raises(AssertionError):
        assert_near(ops.experts(rows, counts_E, swapped), expected, weight_format)


@pytest.mark.skipif("bfloat16" not in FORMATS, reason="this processor has no bfloat16 products")
def test_any_number_of_rows_is_compiled_into_little_memory(random_tensor: Random) -> None:
    linear = select_ops("cpu", "bfloat16").linear
    packed = linear.prepare(random_tensor(640, 768).bfloat16())
    process = psutil.Process()
    rows = random_tensor(300, 768).bfloat16()
    linear(rows, packed)
    before = process.memory_info().rss
    for num_rows in range(33, 300):
        linear(rows[:num_rows], packed)
    # One product for each number would be 170 MB.
    assert process.memory_info().rss - before < 50 << 20
