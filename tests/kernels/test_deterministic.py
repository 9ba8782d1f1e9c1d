"""A row's bits do not depend on the rows around it, its place among them, or the threads."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from moe_kernels.deterministic import TiledExperts, TiledLinear, TiledRmsNorm
from moe_kernels.ops import Experts, Linear
from moe_kernels.reference import ReferenceExperts, ReferenceLinear, ReferenceRmsNorm

Random = Callable[..., torch.Tensor]
Rows = Callable[[torch.Tensor], torch.Tensor]
DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [(64, 96), (37, 50), (13, 7), (320, 576), (1, 256)]


@pytest.fixture(params=[1, 2, pytest.param(3, marks=pytest.mark.slow)])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def assert_rows_are_independent(compute: Rows, x_RD: torch.Tensor) -> None:
    """Any choice of rows, in any order, among any others, gives the bits of one row alone."""
    alone = torch.cat([compute(x_RD[row : row + 1].clone()) for row in range(len(x_RD))])
    chooser = random.Random(0)
    for _ in range(12):
        chosen = [chooser.randrange(len(x_RD)) for _ in range(chooser.randint(1, 60))]
        assert torch.equal(compute(x_RD[chosen]), alone[chosen])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width_out", "width_in"), SHAPES)
def test_linear(
    random_tensor: Random, width_out: int, width_in: int, dtype: torch.dtype, num_threads: int
) -> None:
    weight, bias = (random_tensor(*s, dtype=dtype) for s in ((width_out, width_in), (width_out,)))
    op = TiledLinear()
    packed = op.prepare(weight)
    x = random_tensor(40, width_in, dtype=dtype)
    assert_rows_are_independent(lambda rows: op(rows, packed, bias), x)
    assert op(x[:0], packed).shape == (0, width_out)


def test_the_check_sees_a_row_that_leaks_into_the_others(random_tensor: Random) -> None:
    with pytest.raises(AssertionError):
        assert_rows_are_independent(lambda x: x + x.mean(0) * 1e-6, random_tensor(40, 8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_does_not_care_where_its_weight_lay(
    random_tensor: Random, dtype: torch.dtype
) -> None:
    shelf = random_tensor(128 * 192 + 1, dtype=dtype)
    shifted = shelf[1:].view(128, 192)
    x, op = random_tensor(9, 192, dtype=dtype), TiledLinear()
    assert torch.equal(op(x, op.prepare(shifted)), op(x, op.prepare(shifted.clone())))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("expert_width", "width"), [(48, 64), (24, 40), (128, 256)])
def test_experts(
    random_tensor: Random, expert_width: int, width: int, dtype: torch.dtype, num_threads: int
) -> None:
    gate_up = random_tensor(3, 2 * expert_width, width, dtype=dtype)
    down = random_tensor(3, width, expert_width, dtype=dtype)
    op = TiledExperts()
    packed = op.prepare(gate_up, down)

    def with_company(rows: torch.Tensor) -> torch.Tensor:
        """The rows go to expert 1; the others have rows of their own."""
        both = torch.cat([rows[:2], rows, rows[-1:]])
        counts = torch.tensor([len(rows[:2]), len(rows), 1])
        return op(both, counts, packed)[len(rows[:2]) : -1]

    x = random_tensor(40, width, dtype=dtype)
    assert_rows_are_independent(with_company, x)
    counts = torch.tensor([0, len(x), 0])
    assert torch.equal(op(x, counts, packed), with_company(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8, 50, 128, 1024, 2304])
def test_norm(random_tensor: Random, width: int, dtype: torch.dtype, num_threads: int) -> None:
    weight, op = random_tensor(width, dtype=dtype), TiledRmsNorm()
    x = random_tensor(40, width, dtype=dtype)
    assert_rows_are_independent(lambda rows: op(rows, weight, 1e-6), x)
    heads = x.view(10, 4, width)
    assert torch.equal(op(heads, weight, 1e-6), op(x, weight, 1e-6).view(10, 4, width))


def results(linear: Linear, experts: Experts, random_tensor: Random) -> list[torch.Tensor]:
    x = random_tensor(23, 40)
    weight, bias = random_tensor(24, 40), random_tensor(24)
    packed = experts.prepare(random_tensor(4, 48, 40), random_tensor(4, 40, 24))
    counts = torch.tensor([5, 0, 17, 1])
    return [linear(x, linear.prepare(weight), bias), experts(x, counts, packed)]


def test_tiles_compute_what_the_reference_computes(random_tensor: Random) -> None:
    generator = torch.Generator().manual_seed(3)

    def again(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tiled = results(TiledLinear(), TiledExperts(), again)
    generator.manual_seed(3)
    expected = results(ReferenceLinear(), ReferenceExperts(), again)
    torch.testing.assert_close(tiled, expected, rtol=1e-4, atol=1e-5)
    x, weight = random_tensor(5, 24), random_tensor(24)
    torch.testing.assert_close(TiledRmsNorm()(x, weight, 1e-6), ReferenceRmsNorm()(x, weight, 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_does_not_change_a_bit(
    random_tensor: Random, dtype: torch.dtype
) -> None:
    x, weight = random_tensor(33, 576, dtype=dtype), random_tensor(1024, 576, dtype=dtype)
    op, before = TiledLinear(), torch.get_num_threads()
    outcomes = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        outcomes.append(op(x, op.prepare(weight)))
    torch.set_num_threads(before)
    assert all(torch.equal(outcome, outcomes[0]) for outcome in outcomes)
