"""What other engines wrote, as plain Python: JSON, .npz, or a file of torch.save."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moe_placement.load.formats.torch_file import read_torch_file
from moe_placement.load.trace import ExpertLoad, Ints, LoadError
from moe_placement.load.trace_file import read_arrays

# Counts from here on are not exact in every format, and no engine's.
_MOST = 1 << 53


def read_dump(path: Path) -> Mapping[str, Any]:
    """The named values of a file, by its ending: .npz, .pt or .pth, or else JSON.

    Raises:
        LoadError: names the file, and says what is wrong with it.
    """
    try:
        data = _read(path)
    except OSError as error:
        raise LoadError(f"dump {path} cannot be read: {error.strerror or error}") from error
    except LoadError as error:
        raise LoadError(f"dump {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise LoadError(f"dump {path} is no JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise LoadError(f"dump {path} holds a {type(data).__name__}; it must hold named values")
    return data


def _read(path: Path) -> Any:
    if path.suffix == ".npz":
        return read_arrays(path)
    if path.suffix in (".pt", ".pth"):
        return read_torch_file(path)
    return json.loads(path.read_text(encoding="utf-8"))


def counts(dump: Mapping[str, Any], key: str, num_axes: Sequence[int]) -> Ints:
    """Whole numbers under a key, with one of the numbers of axes.

    Raises:
        LoadError: names the key and what it holds instead.
    """
    if key not in dump:
        raise LoadError(f"key {key!r} is missing; there are {', '.join(map(str, dump)) or 'none'}")
    try:
        array = np.asarray(dump[key])
    except ValueError as error:
        raise LoadError(f"key {key!r} has lines of unequal length") from error
    is_real = array.dtype.kind in "iuf"
    is_whole = is_real and bool(np.all((array == np.rint(array)) & (np.abs(array) < _MOST)))
    if array.ndim not in num_axes or not is_whole:
        wanted = " or ".join(map(str, num_axes))
        raise LoadError(
            f"key {key!r} is {array.dtype} with {array.ndim} axes; it must hold whole numbers "
            f"along {wanted}"
        )
    return array.astype(np.int64)


def logical_counts(physical_TLS: Ints, expert_LS: Ints) -> Ints:
    """Rows of each expert, from those of the slots that hold it.

    Raises:
        LoadError: the two do not fit each other.
    """
    if physical_TLS.shape[1:] != expert_LS.shape or expert_LS.min(initial=0) < 0:
        raise LoadError(
            f"counts of shape {physical_TLS.shape} do not fit a map of physical to logical experts "
            f"of shape {expert_LS.shape}"
        )
    if expert_LS.max(initial=0) >= expert_LS.shape[1]:
        raise LoadError(
            f"the map of physical to logical experts holds {expert_LS.max()}, but only "
            f"{expert_LS.shape[1]} physical ones; each expert needs one at least"
        )
    num_layers, num_experts = len(expert_LS), int(expert_LS.max(initial=0)) + 1
    counts_TLE = np.zeros((len(physical_TLS), num_layers, num_experts), np.int64)
    for layer, expert_S in enumerate(expert_LS):
        np.add.at(counts_TLE[:, layer].T, expert_S, physical_TLS[:, layer].T)
    return counts_TLE


def to_load(counts_TLE: Ints, *, model: str, layers: Sequence[int] | None = None) -> ExpertLoad:
    """A record of one step a window, without the steps that were never filled.

    Args:
        layers: the model's own numbers of the layers; 0, 1, 2, ... by default.

    Raises:
        LoadError: there is nothing in it.
    """
    is_filled_T = counts_TLE.any(axis=(1, 2))
    if not is_filled_T.any():
        raise LoadError("all counts are 0; record while requests run")
    numbers = tuple(range(counts_TLE.shape[1])) if layers is None else tuple(layers)
    return ExpertLoad(
        model=model, layers=numbers, counts_TLE=counts_TLE[is_filled_T], steps_per_window=1
    )
