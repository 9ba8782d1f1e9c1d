"""Number types of the KV wire, against torch's own conversions."""

import numpy as np
import pytest
import torch
from moe_comm.kv.number_types import convert, dequantize, quantize

NUMBERS = np.concatenate(
    (
        np.random.default_rng(0).standard_normal(4096, np.float32) * np.float32(100),
        # Halfway between neighbours in bfloat16: to even, up and down.
        np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF], np.uint32).view(np.float32),
        np.array([0.0, -0.0, 1e-45, 3e38, -3e38, 65504, 65519], np.float32),
    )
)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_numbers_round_as_in_torch(name: str) -> None:
    dtype = getattr(torch, name)
    expected = torch.from_numpy(NUMBERS).clamp(-65504, 65504) if name == "float16" else NUMBERS
    bits = torch.as_tensor(expected).to(dtype).view(torch.int16).numpy()
    narrow = convert(NUMBERS, "float32", name)
    assert np.array_equal(narrow.view(np.int16), bits)
    widened = torch.from_numpy(bits).view(dtype).float().numpy()
    assert np.array_equal(convert(narrow, name, "float32"), widened)


def test_what_is_no_number_stays_none() -> None:
    broken = np.array([np.nan, -np.nan], np.float32)
    assert np.isnan(convert(convert(broken, "float32", "bfloat16"), "bfloat16", "float32")).all()


def test_int8_is_within_half_a_step_and_keeps_zero_rows() -> None:
    values = np.random.default_rng(1).standard_normal((5, 3, 64)).astype(np.float32)
    values[2, 1] = 0
    steps, scale = quantize(values)
    assert steps.dtype == np.int8 and scale.shape == (5, 3)
    assert np.array_equal(np.abs(steps).max(-1) == 127, scale > 0)
    error = np.abs(dequantize(steps, scale) - values)
    assert (error <= 0.5001 * scale[..., None]).all() and error.max() > 0
