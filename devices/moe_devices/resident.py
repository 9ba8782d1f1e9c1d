"""Host tensors that take memory only where they were written, and give it back in parts."""

import mmap
from math import prod

import torch


class ResidentTensor:
    """A tensor of zeros whose rows can be made zeros again, which gives their memory back.

    Memory is taken and given back in whole pages of the system; rows that end within one share it.

    Attributes:
        tensor: the memory stays mapped as long as it, or a view of it, is there.
        row_bytes: of one index of its first dimension.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.row_bytes = prod(shape[1:]) * dtype.itemsize
        self._memory = mmap.mmap(
            -1, shape[0] * self.row_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        # A huge page is taken as a whole for its first byte.
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.tensor = torch.frombuffer(self._memory, dtype=dtype).view(shape)

    def discard(self, first_row: int, end_row: int) -> None:
        """Make rows [first_row, end_row) zeros."""
        first, end = first_row * self.row_bytes, end_row * self.row_bytes
        inner = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        outer = end // mmap.PAGESIZE * mmap.PAGESIZE
        if inner >= outer:
            self._clear(first, end)
            return
        self._memory.madvise(mmap.MADV_DONTNEED, inner, outer - inner)
        self._clear(first, inner)
        self._clear(outer, end)

    def _clear(self, first: int, end: int) -> None:
        if first < end:
            self._memory[first:end] = bytes(end - first)
