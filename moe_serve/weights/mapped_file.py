"""A file's bytes as tensors, mapped so that they count for nobody's memory.

A mapping that may be written counts as this process's own memory where that is limited
(RLIMIT_DATA), touched or not; torch's, numpy's and safetensors' all are of that kind. What is
mapped for reading alone counts as the system's cache of the file.
"""

import ctypes
import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch


class MappedFile:
    """Stays mapped as long as it, or a tensor of it, is there.

    Raises:
        OSError, ValueError: the file is missing or empty.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        # Torch warns of memory that it must not write, once for all that it is given.
        self._bytes = (ctypes.c_char * len(mapped)).from_address(address)
        self._bytes.mapped = mapped  # type: ignore[attr-defined]

    def tensor(self, first_byte: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Numbers of the file, read when they are touched; to write them ends the process.

        Raises:
            ValueError: the file ends before they do.
        """
        count = math.prod(shape)
        if first_byte + count * dtype.itemsize > len(self._bytes):
            raise ValueError(f"it has {len(self._bytes)} bytes")
        if not count:
            return torch.empty(*shape, dtype=dtype)
        numbers = torch.frombuffer(self._bytes, dtype=dtype, count=count, offset=first_byte)
        return numbers.view(*shape)
