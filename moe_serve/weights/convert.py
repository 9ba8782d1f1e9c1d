"""Stored tensors to numbers one can compute with: DeepSeek's FP8 blocks are multiplied out.

Shape legend: N rows read, D columns, B rows of blocks, C columns of blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moe_serve.errors import CheckpointError, UnsupportedError
from moe_serve.weights.checkpoint import Checkpoint

SCALE_SUFFIX = "_scale_inv"
SUPPORTED = "supported are unquantised weights and FP8 (e4m3) with weight_block_size, as DeepSeek's"


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The part of a weight that shares one scale; the last block of a row or column is partial."""

    rows: int
    columns: int


def read_block_shape(config: Mapping[str, Any]) -> BlockShape | None:
    """The FP8 blocks of a model, from its config.json; None where weights are not quantised.

    Raises:
        UnsupportedError: weights are quantised in another way.
        CheckpointError: it does not say in which.
    """
    quantization = config.get("quantization_config")
    if quantization is None:
        return None
    if not isinstance(quantization, Mapping):
        raise CheckpointError(
            f"config.json: quantization_config is {quantization!r}, expected an object"
        )
    method, block = quantization.get("quant_method"), quantization.get("weight_block_size")
    if method != "fp8":
        raise UnsupportedError(f"quantization_config has quant_method {method!r}; {SUPPORTED}")
    if quantization.get("fmt", "e4m3") != "e4m3":
        raise UnsupportedError(f"quantization_config has fmt {quantization['fmt']!r}; {SUPPORTED}")
    if not isinstance(block, list) or len(block) != 2 or not all(map(_is_count, block)):
        raise UnsupportedError(f"quantization_config has weight_block_size {block!r}; {SUPPORTED}")
    return BlockShape(*block)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def read_numbers(
    checkpoint: Checkpoint,
    name: str,
    shape: Sequence[int],
    blocks: BlockShape | None,
    rows: slice | None = None,
    columns: slice | None = None,
) -> torch.Tensor:
    """A tensor on the host, of which FP8 blocks have been multiplied out in float32.

    Args:
        shape: of the whole tensor.
        rows: the part of the first dimension to read; None reads all.
        columns: likewise of the second dimension.

    Raises:
        CheckpointError: the tensor cannot be read, or it is FP8 and has no scales.
    """
    values = checkpoint.read(name, shape, rows, columns)
    if values.dtype != torch.float8_e4m3fn:
        return values
    if blocks is None or name + SCALE_SUFFIX not in checkpoint or len(shape) != 2:
        raise CheckpointError(
            f"tensor {name} of {checkpoint.stored(name).file} is FP8 and has no block scales: "
            f"{name + SCALE_SUFFIX} and quantization_config.weight_block_size are needed"
        )
    scale_rows, row_offset = _blocks_of(rows, shape[0], blocks.rows)
    scale_columns, column_offset = _blocks_of(columns, shape[1], blocks.columns)
    scale_shape = (-(-shape[0] // blocks.rows), -(-shape[1] // blocks.columns))
    scale_BC = checkpoint.read(name + SCALE_SUFFIX, scale_shape, scale_rows, scale_columns)
    return multiply_out(values, scale_BC, blocks, row_offset, column_offset)


def _blocks_of(part: slice | None, size: int, block_size: int) -> tuple[slice, int]:
    """The blocks that a part of a dimension lies in, and where in the first of them it begins."""
    first, last, _ = (part or slice(None)).indices(size)
    return slice(first // block_size, -(-last // block_size)), first % block_size


def multiply_out(
    values_ND: torch.Tensor,
    scale_BC: torch.Tensor,
    blocks: BlockShape,
    row_offset: int = 0,
    column_offset: int = 0,
) -> torch.Tensor:
    """Each FP8 value times its block's scale, in float32.

    Args:
        row_offset, column_offset: rows and columns of the first block that lie before the first
            value.
    """
    numbers_ND = values_ND.to(torch.float32)
    num_rows, num_columns = numbers_ND.shape
    scale_NC = scale_BC.float()[(torch.arange(num_rows) + row_offset) // blocks.rows]
    num_leading = min(-column_offset % blocks.columns, num_columns)
    numbers_ND[:, :num_leading].mul_(scale_NC[:, :1])
    scale_NC = scale_NC[:, num_leading > 0 :]
    num_whole, rest = divmod(num_columns - num_leading, blocks.columns)
    whole = numbers_ND[:, num_leading : num_columns - rest]
    whole.view(num_rows, num_whole, blocks.columns).mul_(scale_NC[:, :num_whole, None])
    numbers_ND[:, num_columns - rest :].mul_(scale_NC[:, num_whole:])
    return numbers_ND
