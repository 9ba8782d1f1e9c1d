"""What tensors hold: those of a built model, and those that are alive while an op computes."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested dataclasses, tuples and objects with attributes."""
    if isinstance(value, torch.Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dict__"):
        yield from tensors_in(list(vars(value).values()))


def held_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of their memory, what several of them share counted once."""
    plain, packed = {}, {}
    for tensor in tensors:
        if tensor.is_mkldnn:
            packed[id(tensor)] = torch.ops.mkldnn._nbytes(tensor)
        else:
            storage = tensor.untyped_storage()
            plain[storage.data_ptr()] = storage.nbytes()
    return sum(plain.values()) + sum(packed.values())


class PeakBytes(TorchDispatchMode):
    """Counts what is alive of the tensors made inside, but for those that share the inputs'.

    Attributes:
        peak: the most bytes at once.
    """

    def __init__(self, *inputs: torch.Tensor) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._inputs = {tensor.untyped_storage()._cdata for tensor in inputs}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._inputs:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(num_bytes for _, num_bytes in self._live.values()))
        return result
