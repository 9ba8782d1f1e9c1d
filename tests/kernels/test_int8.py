"""int8 weights: rounded once, by row; every kernel computes with the same rounded numbers."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from held_bytes import held_bytes, tensors_in
from moe_kernels.cpu.digits import from_digits, to_digits
from moe_kernels.cpu.int8 import Int8Experts, Int8Linear, has_vnni
from moe_kernels.dequantised import DequantisedExperts, DequantisedLinear
from moe_kernels.deterministic import TiledExperts, TiledLinear
from moe_kernels.ops import Experts, Linear
from moe_kernels.quantise import quantise
from moe_kernels.reference import ReferenceExperts, ReferenceLinear
from moe_kernels.table import select_ops

Random = Callable[..., torch.Tensor]
needs_vnni = pytest.mark.skipif(not has_vnni(), reason="this processor has no VNNI")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Of the largest number: what activations lose, in digits or in their own dtype.
TOLERANCE = {torch.float32: 3e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
LINEARS: dict[str, Callable[[], Linear]] = {
    "dequantised": lambda: DequantisedLinear(ReferenceLinear()),
    "tiled": lambda: DequantisedLinear(TiledLinear()),
    "onednn": Int8Linear,
}
EXPERTS: dict[str, Callable[[], Experts]] = {
    "dequantised": lambda: DequantisedExperts(ReferenceExperts()),
    "tiled": lambda: DequantisedExperts(TiledExperts()),
    "onednn": Int8Experts,
}
NAMES = ["dequantised", "tiled", pytest.param("onednn", marks=needs_vnni)]


@pytest.fixture(
    params=[("tiled", 1), *(pytest.param(("onednn", n), marks=needs_vnni) for n in (1, 2))]
)
def stable(request: pytest.FixtureRequest) -> Iterator[str]:
    """A kernel by name, and torch with so many threads."""
    name, num_threads = request.param
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    yield name
    torch.set_num_threads(before)


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max()
    assert error <= TOLERANCE[actual.dtype] * expected.abs().max()


def test_each_row_is_within_half_a_step_of_its_numbers(random_tensor: Random) -> None:
    weight = random_tensor(1500, 24) * random_tensor(1500, 1).exp()
    weight[7] = 0
    rounded = quantise(weight)
    assert (rounded.values_ND.dtype, rounded.scale_N.dtype) == (torch.int8, torch.float32)
    assert rounded.values_ND.abs().amax(1)[torch.arange(1500) != 7].eq(127).all()
    assert ((rounded.numbers() - weight).abs() <= 0.5001 * rounded.scale_N[:, None]).all()
    assert rounded.numbers()[7].eq(0).all() and rounded.scale_N.gt(0).all()


def test_weights_of_any_dtype_are_rounded_from_the_numbers_read(random_tensor: Random) -> None:
    weight = random_tensor(5, 64).bfloat16()
    ours, wide = quantise(weight), quantise(weight.float())
    assert torch.equal(ours.values_ND, wide.values_ND) and torch.equal(ours.scale_N, wide.scale_N)


def test_digits_keep_sixteen_bits_of_each_row(random_tensor: Random) -> None:
    x = random_tensor(9, 40) * random_tensor(9, 1).exp()
    x[3] = 0
    digits, unit = to_digits(x)
    assert (digits.dtype, digits.shape) == (torch.uint8, (18, 40))
    again = from_digits(digits.float() - 128, unit)
    assert ((again - x).abs() <= 0.501 * unit).all()
    assert (unit[:, 0] <= x.abs().amax(1) / 32000 + 1e-30).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows", [0, 1, 2, 5, 33])
@pytest.mark.parametrize(("width_out", "width_in"), [(64, 128), (37, 50), (1, 16)])
@pytest.mark.parametrize("name", NAMES)
def test_linear(
    random_tensor: Random,
    name: str,
    width_out: int,
    width_in: int,
    num_rows: int,
    dtype: torch.dtype,
) -> None:
    op = LINEARS[name]()
    weight, bias = random_tensor(width_out, width_in), random_tensor(width_out, dtype=dtype)
    x = random_tensor(num_rows, width_in, dtype=dtype)
    y = op(x, op.prepare(weight), bias)
    assert y.dtype == dtype
    if num_rows:
        expected = x.double() @ quantise(weight).numbers().double().T
        assert_near(y, expected + bias.double())
        assert_near(op(x, op.prepare(weight)), expected)
    assert y.shape == (num_rows, width_out)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("counts", [[0, 0, 0], [1, 0, 1], [0, 5, 1], [3, 2, 40]])
@pytest.mark.parametrize("name", NAMES)
def test_experts(random_tensor: Random, name: str, counts: list[int], dtype: torch.dtype) -> None:
    gate_up, down = random_tensor(3, 48, 40) / 6, random_tensor(3, 40, 24) / 5
    rows, counts_E = random_tensor(sum(counts), 40, dtype=dtype), torch.tensor(counts)
    numbers = [
        torch.stack([quantise(matrix).numbers() for matrix in weight]) for weight in (gate_up, down)
    ]
    op = EXPERTS[name]()
    before, y = rows.clone(), op(rows, counts_E, op.prepare(gate_up, down))
    assert (y.dtype, y.shape, torch.equal(rows, before)) == (dtype, rows.shape, True)
    if len(rows):
        assert_near(y, ReferenceExperts()(rows.float(), counts_E, tuple(numbers)))
        swapped = op(rows, counts_E, op.prepare(gate_up.flip(0), down.flip(0)))
        with pytest.raises(AssertionError):
            assert_near(swapped, y.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("width_out", "width_in"), [(64, 96), (37, 50), (320, 576)])
def test_a_rows_bits_depend_on_that_row_alone(
    random_tensor: Random, stable: str, width_out: int, width_in: int, dtype: torch.dtype
) -> None:
    linear, experts = LINEARS[stable](), EXPERTS[stable]()
    packed = linear.prepare(random_tensor(width_out, width_in))
    gate_up, down = random_tensor(1, 2 * width_out, width_in), random_tensor(1, width_in, width_out)
    held = experts.prepare(gate_up, down)
    x = random_tensor(40, width_in, dtype=dtype)
    outcomes = (
        lambda rows: linear(rows, packed),
        lambda rows: experts(rows, torch.tensor([len(rows)]), held),
    )
    chooser = random.Random(0)
    num_choices = 2 if stable == "tiled" else 8
    for compute in outcomes:
        alone = torch.cat([compute(x[row : row + 1].clone()) for row in range(len(x))])
        for _ in range(num_choices):
            chosen = [chooser.randrange(len(x)) for _ in range(chooser.randint(1, 60))]
            assert torch.equal(compute(x[chosen]), alone[chosen])


@needs_vnni
def test_the_table_takes_the_integers_whether_deterministic_or_not() -> None:
    for deterministic in (False, True):
        ops = select_ops("cpu", "int8", deterministic, dtype="bfloat16")
        assert (type(ops.linear), type(ops.experts)) == (Int8Linear, Int8Experts)


@needs_vnni
def test_a_packed_weight_is_its_bytes_and_two_numbers_for_each_row(random_tensor: Random) -> None:
    packed = Int8Linear().prepare(random_tensor(256, 512, dtype=torch.bfloat16))
    assert held_bytes(tensors_in(packed)) == 256 * (512 + 4 + 4)


@needs_vnni
def test_a_matrix_too_wide_for_exact_sums_is_refused() -> None:
    with pytest.raises(ValueError, match="65794 columns is not served; at most 65793"):
        Int8Linear().prepare(torch.ones(1, 65794))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("weight_format", ["bfloat16", "float16"])
def test_weights_may_be_narrower_floats_than_activations(
    random_tensor: Random, weight_format: str, deterministic: bool
) -> None:
    dtype = getattr(torch, weight_format)
    ops = select_ops("cpu", weight_format, deterministic, dtype="float32")
    x, weight = random_tensor(5, 64), random_tensor(128, 64)
    packed = ops.linear.prepare(weight)
    expected = x.double() @ weight.to(dtype).double().T
    y = ops.linear(x, packed)
    assert y.dtype == torch.float32
    assert (y - expected).abs().max() <= 1e-2 * expected.abs().max()
    assert held_bytes(tensors_in(packed)) <= 128 * 64 * 2 + 64
    router = ops.plain_linear(x, ops.plain_linear.prepare(weight))
    torch.testing.assert_close(
        router.double(), x.double() @ weight.double().T, rtol=1e-4, atol=1e-4
    )
