"""Expert load as .npz files, with a format version: what the engine records, the planner reads.

The file is a zip of NumPy arrays, none of them an object: `version` (whole number, 1), `model`
(text), `layers` (L whole numbers), `steps_per_window` (whole number), `counts_TLE`, and where
they were recorded `coactivation_LEE` and `source_LNE`. Other arrays are ignored, so that a
recorder may add its own.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_placement.load.trace import ExpertLoad, Ints, LoadError

FORMAT_VERSION = 1

# What readers of zip files raise when bytes are missing or changed.
DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

_REQUIRED = ("version", "model", "layers", "steps_per_window", "counts_TLE")
_OPTIONAL = ("coactivation_LEE", "source_LNE")


def save(load: ExpertLoad, path: Path) -> None:
    """Write the record so that a reader never sees half a file.

    Raises:
        OSError: the file cannot be written.
    """
    arrays: dict[str, Any] = {
        "version": np.array(FORMAT_VERSION),
        "model": np.array(load.model),
        "layers": np.array(load.layers, np.int64),
        "steps_per_window": np.array(load.steps_per_window),
        "counts_TLE": load.counts_TLE,
    }
    arrays |= {name: array for name in _OPTIONAL if (array := getattr(load, name)) is not None}
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    draft.replace(path)


def load(path: Path) -> ExpertLoad:
    """Read and check a record.

    Raises:
        LoadError: names the file and the version, array or layer that is wrong.
    """
    try:
        return _to_load(read_arrays(path))
    except LoadError as error:
        raise LoadError(f"load file {path}: {error}") from error
    except OSError as error:
        raise LoadError(f"load file {path} cannot be read: {error.strerror or error}") from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file; one that holds Python objects is refused.

    Raises:
        LoadError: it is no such file; the caller names it.
        OSError: it cannot be read.
    """
    with path.open("rb") as raw:
        if not zipfile.is_zipfile(raw):
            raise LoadError("it is damaged, or no .npz file")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise LoadError(f"it is damaged: {error}") from error


def _to_load(arrays: dict[str, NDArray[Any]]) -> ExpertLoad:
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise LoadError(f"array {missing[0]!r} is missing; is this a record of expert load?")
    version = _whole(arrays, "version", 0).item()
    if version != FORMAT_VERSION:
        raise LoadError(
            f"format version {version} is not known; this program reads version {FORMAT_VERSION}"
        )
    return ExpertLoad(
        model=str(arrays["model"]),
        layers=tuple(_whole(arrays, "layers", 1).tolist()),
        counts_TLE=_whole(arrays, "counts_TLE", 3),
        steps_per_window=_whole(arrays, "steps_per_window", 0).item(),
        **{name: _whole(arrays, name, 3) for name in _OPTIONAL if name in arrays},
    )


def _whole(arrays: dict[str, NDArray[Any]], name: str, ndim: int) -> Ints:
    array = arrays[name]
    if not np.issubdtype(array.dtype, np.integer) or array.ndim != ndim:
        raise LoadError(
            f"array {name!r} is {array.dtype} with {array.ndim} axes; it must hold whole "
            f"numbers along {ndim}"
        )
    return array.astype(np.int64)
