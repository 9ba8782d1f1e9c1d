"""One matrix per head, and SwiGLU: right, and in the tiled form the same bits in any batch."""

import pytest
import torch
from moe_kernels.head_linear import ReferenceHeadLinear, TiledHeadLinear
from moe_kernels.swiglu import ReferenceSwiGlu, StableSwiGlu
from torch.nn import functional

DTYPES = (torch.float32, torch.bfloat16)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_tokens", [0, 1, 16, 37])
@pytest.mark.parametrize("op", [ReferenceHeadLinear(), TiledHeadLinear()])
def test_each_head_has_its_own_matrix(
    op: ReferenceHeadLinear, num_tokens: int, dtype: torch.dtype
) -> None:
    x_THa, weight_Hba = random(num_tokens, 3, 24, dtype=dtype), random(3, 40, 24, dtype=dtype)
    y_THb = op(x_THa, op.prepare(weight_Hba))
    assert (y_THb.shape, y_THb.dtype) == ((num_tokens, 3, 40), dtype)
    for head in range(3):
        expected = functional.linear(x_THa[:, head].double(), weight_Hba[head].double())
        tolerance = 1e-5 if dtype == torch.float32 else 0.2
        torch.testing.assert_close(y_THb[:, head].double(), expected, rtol=0.01, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiled_bits_do_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    op = TiledHeadLinear()
    packed = op.prepare(random(4, 72, 24, dtype=dtype))
    x_THx = random(50, 4, 40, dtype=dtype)
    whole = op(x_THx[..., :24], packed)
    for start, end in ((0, 1), (3, 20), (17, 50), (49, 50)):
        assert torch.equal(op(x_THx[start:end, :, :24], packed), whole[start:end])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_stable_swiglu_is_swiglu_with_the_same_bits_in_any_batch(dtype: torch.dtype) -> None:
    gate_up = 4 * random(300, 2 * 37, dtype=dtype)
    stable, whole = StableSwiGlu(), StableSwiGlu()(gate_up)
    torch.testing.assert_close(whole, ReferenceSwiGlu()(gate_up), rtol=1e-2, atol=1e-6)
    for row in range(300):
        assert torch.equal(stable(gate_up[row : row + 1])[0], whole[row])


def test_swiglu_of_extreme_numbers_is_finite() -> None:
    gate_up = torch.tensor([[-200.0, 200.0, -0.0, 1.0, 1.0, 1.0]])
    for op in (ReferenceSwiGlu(), StableSwiGlu()):
        assert op(gate_up).tolist() == [[0.0, 200.0, 0.0]]
