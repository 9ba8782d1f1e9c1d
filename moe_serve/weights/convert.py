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
    """
    quantization = config.get("quantization_config")
    if quantization is None:
        return None
    method, block = quantization.get("quant_method"), quantization.get("weight_block_size")
    if method != "fp8":
        raise UnsupportedError(f"quantization_config has quant_method {method!r}; {SUPPORTED}")
    if quantization.get("fmt", "e4m3") != "e4m3":
        raise UnsupportedError(f"quantization_config has fmt {quantization['fmt']!r}; {SUPPORTED}")
    if not isinstance(block, Sequence) or len(block) != 2:
        raise UnsupportedError(f"quantization_config has weight_block_size {block!r}; {SUPPORTED}")
    return BlockShape(*block)


def read_numbers(
    checkpoint: Checkpoint,
    name: str,
    shape: Sequence[int],
    blocks: BlockShape | None,
    rows: slice | None = None,
) -> torch.Tensor:
    """A tensor on the host, of which FP8 blocks have been multiplied out in float32.

    Args:
        shape: of the whole tensor.
        rows: the part of the first dimension to read; None reads all.

    Raises:
        CheckpointError: the tensor cannot be read, or it is FP8 and has no scales.
    """
    values = checkpoint.read(name, shape, rows)
    if values.dtype != torch.float8_e4m3fn:
        return values
    if blocks is None or name + SCALE_SUFFIX not in checkpoint or len(shape) != 2:
        raise CheckpointError(
            f"tensor {name} of {checkpoint.stored(name).file} is FP8 and has no block scales: "
            f"{name + SCALE_SUFFIX} and quantization_config.weight_block_size are needed"
        )
    first, last, _ = (rows or slice(None)).indices(shape[0])
    scale_shape = (-(-shape[0] // blocks.rows), -(-shape[1] // blocks.columns))
    scale_rows = slice(first // blocks.rows, -(-last // blocks.rows))
    scale_BC = checkpoint.read(name + SCALE_SUFFIX, scale_shape, scale_rows)
    return multiply_out(values, scale_BC, blocks, first % blocks.rows)


def multiply_out(
    values_ND: torch.Tensor, scale_BC: torch.Tensor, blocks: BlockShape, offset: int = 0
) -> torch.Tensor:
    """Each FP8 value times its block's scale, in float32.

    Args:
        offset: rows of the first block that lie before the first value.
    """
    numbers_ND = values_ND.to(torch.float32)
    num_rows, num_columns = numbers_ND.shape
    scale_NC = scale_BC.float()[(torch.arange(num_rows) + offset) // blocks.rows]
    num_whole, rest = divmod(num_columns, blocks.columns)
    whole = numbers_ND[:, : num_columns - rest]
    whole.view(num_rows, num_whole, blocks.columns).mul_(scale_NC[:, :num_whole, None])
    numbers_ND[:, num_columns - rest :].mul_(scale_NC[:, num_whole:])
    return numbers_ND
