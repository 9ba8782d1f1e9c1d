"""The Device protocol: one accelerator as one rank drives it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from moe_devices.pacer import Pacer
from moe_devices.work import Pace


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one device.

    Attributes:
        total: what this rank may use at most.
        free: what nobody holds yet.
    """

    total: int
    free: int


class Device(Protocol):
    """One rank's device: what it is called, what it can exchange by, and what memory it has.

    Opened once; a process opens devices of one kind only. Work is queued on torch's current
    stream.
    """

    @property
    def kind(self) -> str:
        """The accelerator kind that kernels and plans are keyed by: cpu, cuda, npu."""
        ...

    @property
    def torch_device(self) -> torch.device: ...

    @property
    def collective(self) -> str:
        """The native exchange: "mpi", or the torch.distributed backend (nccl, hccl, gloo)."""
        ...

    @property
    def name(self) -> str:
        """What the maker calls it, for logs and benchmarks."""
        ...

    def memory(self) -> Memory: ...

    def pacer(self, pace: Callable[[], Pace]) -> Pacer:
        """What segments of a step wait for.

        Args:
            pace: makes declared seconds of work; asked for by an emulated device alone.
        """
        ...
