"""FP8 blocks, multiplied out as a direct computation does it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fp8_checkpoint import QUANTIZATION, dequantise, quantise

from moe_serve.errors import CheckpointError, UnsupportedError
from moe_serve.weights.checkpoint import Checkpoint
from moe_serve.weights.convert import BlockShape, read_block_shape, read_numbers

BLOCKS = BlockShape(128, 128)
SHAPES = [(256, 128), (200, 300), (64, 130), (130, 40), (1, 1)]


def make_weight(shape: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) * torch.logspace(-3, 3, shape[0])[:, None]


def write_fp8(
    write: Callable[..., Path], shape: tuple[int, int]
) -> tuple[Checkpoint, torch.Tensor]:
    values, scale = quantise(make_weight(shape))
    shards = {"model.safetensors": {"w": values, "w_scale_inv": scale}}
    return Checkpoint.open(write(shards)), dequantise(values, scale)


@pytest.mark.parametrize("shape", SHAPES)
def test_fp8_is_exact(write: Callable[..., Path], shape: tuple[int, int]) -> None:
    checkpoint, expected = write_fp8(write, shape)
    numbers = read_numbers(checkpoint, "w", shape, BLOCKS)
    assert numbers.dtype == torch.float32
    assert torch.equal(numbers, expected)
    assert checkpoint.bytes_read == sum(checkpoint.stored(n).num_bytes for n in checkpoint)


@pytest.mark.parametrize("rows", [(0, 1), (0, 128), (5, 130), (128, 300), (130, 131), (255, 300)])
def test_fp8_rows_use_their_own_scales(write: Callable[..., Path], rows: tuple[int, int]) -> None:
    checkpoint, expected = write_fp8(write, (300, 200))
    numbers = read_numbers(checkpoint, "w", (300, 200), BLOCKS, slice(*rows))
    assert torch.equal(numbers, expected[slice(*rows)])


@pytest.mark.parametrize(
    "columns", [(0, 1), (0, 128), (5, 130), (128, 200), (130, 135), (150, 200)]
)
@pytest.mark.parametrize("rows", [None, slice(5, 130)])
def test_fp8_columns_use_their_own_scales(
    write: Callable[..., Path], rows: slice | None, columns: tuple[int, int]
) -> None:
    checkpoint, expected = write_fp8(write, (300, 420))
    part = slice(*columns)
    numbers = read_numbers(checkpoint, "w", (300, 420), BLOCKS, rows, part)
    assert torch.equal(numbers, expected[rows or slice(None), part])
    last = slice(300, 420)
    numbers = read_numbers(checkpoint, "w", (300, 420), BLOCKS, rows, last)
    assert torch.equal(numbers, expected[rows or slice(None), last])


def test_fp8_columns_read_few_bytes(write: Callable[..., Path]) -> None:
    checkpoint, _ = write_fp8(write, (300, 200))
    read_numbers(checkpoint, "w", (300, 200), BLOCKS, columns=slice(130, 140))
    assert checkpoint.bytes_read == 10 * 300 + 3 * 4


def test_fp8_rows_read_few_bytes(write: Callable[..., Path]) -> None:
    checkpoint, _ = write_fp8(write, (300, 200))
    read_numbers(checkpoint, "w", (300, 200), BLOCKS, slice(130, 140))
    assert checkpoint.bytes_read == 10 * 200 + 2 * 4


def test_scales_in_bfloat16(write: Callable[..., Path]) -> None:
    values, scale = quantise(make_weight((200, 130)))
    scale = scale.bfloat16()
    path = write({"model.safetensors": {"w": values, "w_scale_inv": scale}})
    numbers = read_numbers(Checkpoint.open(path), "w", (200, 130), BLOCKS)
    assert torch.equal(numbers, dequantise(values, scale))


def test_fp8_without_scales_is_named(write: Callable[..., Path]) -> None:
    values, scale = quantise(make_weight((200, 130)))
    checkpoint = Checkpoint.open(write({"model.safetensors": {"w": values}}))
    with pytest.raises(CheckpointError, match=r"tensor w of .* w_scale_inv"):
        read_numbers(checkpoint, "w", (200, 130), BLOCKS)
    checkpoint = Checkpoint.open(write({"model.safetensors": {"w": values, "w_scale_inv": scale}}))
    with pytest.raises(CheckpointError, match=r"weight_block_size"):
        read_numbers(checkpoint, "w", (200, 130), None)


def test_misshapen_scales_are_named(write: Callable[..., Path]) -> None:
    values, scale = quantise(make_weight((200, 130)))
    path = write({"model.safetensors": {"w": values, "w_scale_inv": scale[:1].clone()}})
    with pytest.raises(CheckpointError, match=r"tensor w_scale_inv .*\[1, 2\].*expected \[2, 2\]"):
        read_numbers(Checkpoint.open(path), "w", (200, 130), BLOCKS)


def test_block_shape_of_config() -> None:
    assert read_block_shape({}) is None
    assert read_block_shape({"quantization_config": QUANTIZATION}) == BLOCKS


@pytest.mark.parametrize(
    ("quantization", "named"),
    [
        ({"quant_method": "awq", "bits": 4}, "quant_method 'awq'"),
        ({"quant_method": "fp8"}, "weight_block_size None"),
        ({"quant_method": "fp8", "weight_block_size": ["a", "b"]}, "weight_block_size .'a', 'b'"),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, "weight_block_size .128, 0"),
        (QUANTIZATION | {"fmt": "e5m2"}, "fmt 'e5m2'"),
    ],
)
def test_other_quantisation_is_refused_by_name(quantization: dict, named: str) -> None:
    with pytest.raises(UnsupportedError, match=named) as caught:
        read_block_shape({"quantization_config": quantization})
    assert "supported are" in str(caught.value)


def test_a_quantisation_that_is_no_object_is_an_error_that_names_the_field() -> None:
    with pytest.raises(CheckpointError, match=r"quantization_config is \[\], expected an object"):
        read_block_shape({"quantization_config": []})
