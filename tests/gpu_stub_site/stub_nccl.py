"""NCCL's process group as Gloo moves it: through the host, and only what is on the GPU."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist


class Options:
    _timeout: timedelta


class ProcessGroupNccl:
    """A backend as torch_dist's group registers it."""

    Options = Options

    def __init__(self, store: Any, rank: int, size: int, options: Options) -> None:
        self.gloo = dist.ProcessGroupGloo(store, rank, size, options._timeout)

    def eager_connect_single_device(self, device: torch.device) -> None:
        assert device.type == "cuda", device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gloo, name)


class Work:
    """Its results come to the GPU where they are waited for."""

    def __init__(self, work: Any, results: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._work = work
        self._results = results

    def is_completed(self) -> bool:
        return bool(self._work.is_completed())

    def wait(self) -> None:
        self._work.wait()
        for on_gpu, on_host in self._results:
            on_gpu.copy_(on_host)


class Group:
    """A process group; NCCL's own calls where that is its backend."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self._gloo: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def _register_backend(self, device: torch.device, kind: Any, backend: Any) -> None:
        if isinstance(backend, ProcessGroupNccl):
            self._gloo = backend.gloo
        else:
            self._group._register_backend(device, kind, backend)

    def allreduce(self, tensors: list[torch.Tensor], op: Any) -> Any:
        if self._gloo is None:
            return self._group.allreduce(tensors, op)
        options = dist.AllreduceOptions()
        options.reduceOp = op
        on_host = [from_gpu(tensor) for tensor in tensors]
        results = list(zip(tensors, on_host, strict=True))
        return Work(self._gloo.allreduce(on_host, options), results)

    def allgather(self, outputs: list[list[torch.Tensor]], inputs: list[torch.Tensor]) -> Any:
        if self._gloo is None:
            return self._group.allgather(outputs, inputs)
        on_host = [[torch.empty_like(each, device="cpu") for each in row] for row in outputs]
        work = self._gloo.allgather(on_host, [from_gpu(tensor) for tensor in inputs])
        pairs = zip(chain(*outputs), chain(*on_host), strict=True)
        return Work(work, list(pairs))

    def alltoall_base(
        self, output: torch.Tensor, given: torch.Tensor, receive: list[int], send: list[int]
    ) -> Any:
        if self._gloo is None:
            return self._group.alltoall_base(output, given, receive, send)
        on_host = torch.empty_like(output, device="cpu")
        work = self._gloo.alltoall_base(on_host, from_gpu(given), receive, send)
        return Work(work, [(output, on_host)])

    def shutdown(self) -> None:
        (self._gloo or self._group).shutdown()

    def abort(self) -> None:
        (self._gloo or self._group).abort()


def from_gpu(tensor: torch.Tensor) -> torch.Tensor:
    assert tensor.is_cuda, "NCCL moves what is on a GPU"
    assert tensor.is_contiguous(), "NCCL moves what is contiguous"
    return tensor.cpu()


def install() -> None:
    process_group = dist.ProcessGroup

    class AnyGroup(process_group):  # type: ignore[misc, valid-type]
        def __new__(cls, store: Any, rank: int, size: int) -> Any:
            return Group(process_group(store, rank, size))

    dist.ProcessGroup = AnyGroup  # type: ignore[misc]
    dist.ProcessGroupNCCL = ProcessGroupNccl  # type: ignore[attr-defined]
