"""A Hugging Face checkpoint directory, read lazily: only the bytes asked for are touched."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from moe_serve.errors import CheckpointError
from moe_serve.weights.config_files import read_config, read_end_token_ids
from moe_serve.weights.files import find_tensors
from moe_serve.weights.headers import StoredTensor
from moe_serve.weights.mapped_file import MappedFile

READABLE = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
}


class Checkpoint:
    """Config and tensors of one checkpoint; make it with `open`.

    Attributes:
        config: config.json.
        end_token_ids: the ids that end a sequence.
        bytes_read: bytes of the tensors read so far.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], tensors: dict[str, StoredTensor]
    ) -> None:
        self.path = path
        self.config = config
        self.end_token_ids = read_end_token_ids(path)
        self.bytes_read = 0
        self._tensors = tensors
        self._files: dict[Path, MappedFile] = {}

    @classmethod
    def open(cls, path: Path | str) -> "Checkpoint":
        """Read config and file headers, and check that no file is missing or truncated.

        Raises:
            CheckpointError: names the file, and the tensor where it is about one.
        """
        directory = Path(path)
        return cls(directory, read_config(directory), find_tensors(directory))

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def stored(self, name: str) -> StoredTensor:
        """What the header says of a tensor.

        Raises:
            CheckpointError: there is no such tensor.
        """
        if name not in self._tensors:
            raise CheckpointError(
                f"checkpoint {self.path} has no tensor {name}; its files or its config.json "
                "belong to another model"
            )
        return self._tensors[name]

    def read(
        self,
        name: str,
        shape: Sequence[int],
        rows: slice | None = None,
        columns: slice | None = None,
    ) -> torch.Tensor:
        """A tensor in its stored dtype, on the host: a view of the mapped file, to be copied and
        never written.

        Args:
            shape: of the whole tensor, checked against the file.
            rows: the part of the first dimension to read, step 1; None reads all.
            columns: likewise of the second dimension.

        Raises:
            CheckpointError: the tensor is missing, misshapen or of a dtype that is not read.
        """
        stored = self.stored(name)
        check_readable(name, stored, tuple(shape))
        dtype = READABLE[stored.dtype]
        try:
            whole = self._file(stored.file).tensor(stored.first_byte, shape, dtype)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read tensor {name} of {stored.file}: {error}") from None
        tensor = whole[_places(rows, columns)]
        self.bytes_read += tensor.numel() * tensor.element_size()
        return tensor

    def close(self) -> None:
        """Let go of the files' memory maps; the next read opens them again."""
        self._files.clear()

    def _file(self, file: Path) -> MappedFile:
        if file not in self._files:
            self._files[file] = MappedFile(file)
        return self._files[file]


def _places(rows: slice | None, columns: slice | None) -> Any:
    if columns is not None:
        return rows or slice(None), columns
    return ... if rows is None else rows


def check_readable(name: str, stored: StoredTensor, shape: tuple[int, ...]) -> None:
    if stored.shape != shape:
        raise CheckpointError(
            f"tensor {name} of {stored.file} has shape {list(stored.shape)} "
            f"({math.prod(stored.shape)} elements), expected {list(shape)}; "
            "config.json and weights belong to different models"
        )
    if stored.dtype not in READABLE:
        raise CheckpointError(
            f"tensor {name} of {stored.file} has dtype {stored.dtype}; "
            f"can read {', '.join(READABLE)}"
        )
