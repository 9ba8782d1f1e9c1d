"""What a safetensors file says it holds, read from its header alone.

The format: 8 bytes of little-endian header length, the header as JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors).
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve.errors import CheckpointError

LENGTH_BYTES = 8
METADATA_KEY = "__metadata__"
ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        dtype: safetensors' name for it, e.g. "BF16".
        first_byte: of its numbers, from the beginning of the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    first_byte: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name, none of their bytes read.

    Raises:
        CheckpointError: the file is missing, is no safetensors file, or is shorter than its
            header says.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(LENGTH_BYTES)
            length = struct.unpack("<Q", prefix.ljust(LENGTH_BYTES, b"\0"))[0]
            text = stream.read(length) if LENGTH_BYTES + length <= size else b""
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}; copy it again") from None
    start = LENGTH_BYTES + length
    if start > size or len(prefix) < LENGTH_BYTES:
        raise CheckpointError(f"{file} is truncated or no safetensors file: it has {size} bytes")
    try:
        entries = json.loads(text)
        entries.pop(METADATA_KEY, None)
        return {name: parse_entry(file, name, entries[name], start, size) for name in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} has a damaged header ({error}); copy it again") from None


def parse_entry(
    file: Path, name: str, entry: dict[str, Any], start: int, size: int
) -> StoredTensor:
    """
    Args:
        start: of the tensors' bytes in the file.
        size: bytes of the file.
    """
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    tensor = StoredTensor(file, entry["dtype"], shape, end - begin, start + begin)
    if start + end > size:
        raise CheckpointError(
            f"{file} is truncated: tensor {name} ends at byte {end} of the data, and the file "
            f"holds {size - start}; copy it again"
        )
    item_bytes = ITEM_BYTES.get(tensor.dtype)
    if item_bytes is not None and math.prod(tensor.shape) * item_bytes != tensor.num_bytes:
        raise CheckpointError(
            f"{file} gives tensor {name} {tensor.num_bytes} bytes, and its shape "
            f"{list(tensor.shape)} in {tensor.dtype} needs {math.prod(tensor.shape) * item_bytes}"
        )
    return tensor
