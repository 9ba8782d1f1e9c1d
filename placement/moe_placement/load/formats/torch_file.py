"""Reads the tensors of a `torch.save` file without torch, and without running what it holds.

The format is a zip with a pickle, `data.pkl`, whose tensors point to raw storages, `data/0` and so
on (PyTorch, docs/source/notes/serialization.rst and torch/serialization.py). The pickle is read
by an unpickler that knows the few names which plain data and tensors need, and refuses others.
"""

import pickle
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from moe_placement.load.trace import LoadError
from moe_placement.load.trace_file import DAMAGE

_STORAGES = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
}

_UNPICKLER_DAMAGE = (AttributeError, TypeError, pickle.UnpicklingError)


def read_torch_file(path: Path) -> Any:
    """The object that was saved, with NumPy arrays for tensors.

    Raises:
        LoadError: it is not such a file, or it holds more than data; the caller names it.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise LoadError("it is no file of torch.save: data.pkl is missing")
            prefix = names[0].removesuffix("data.pkl")
            with archive.open(names[0]) as file:
                return _Reader(file, archive, prefix).load()
    except LoadError:
        raise
    except (*DAMAGE, *_UNPICKLER_DAMAGE) as error:
        raise LoadError(f"it is damaged, or no file of torch.save: {error}") from error


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(file)
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name]).newbyteorder("<")
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise LoadError(f"it holds a {module}.{name}, which is no data; save plain tensors")

    def persistent_load(self, reference: Any) -> NDArray[Any]:
        kind, dtype, key, *_ = reference
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise LoadError(f"it refers to a {kind!r}, which is no tensor's storage")
        return np.frombuffer(self._archive.read(f"{self._prefix}data/{key}"), dtype)


def _tensor(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    is_within = min((offset, *size, *stride)) >= 0 and last < len(storage)
    # Strides of 0 could make gigabytes of a few bytes.
    if 0 not in size and not (is_within and prod(size) <= len(storage)):
        raise LoadError(f"a tensor of shape {size} reaches beyond its storage")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()
