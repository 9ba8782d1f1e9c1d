"""The Device protocol: one accelerator as one rank drives it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from moe_devices.pacer import Pacer
from moe_devices.partition import Partition
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

    @property
    def lends_memory(self) -> bool:
        """Whether memory that holds nothing can be given back in parts; see `resident.py`."""
        ...

    def memory(self) -> Memory: ...

    def pacer(self, pace: Callable[[], Pace]) -> Pacer:
        """What segments of a step wait for.

        Args:
            pace: makes declared seconds of work; asked for by an emulated device alone.
        """
        ...

    @property
    def held_memory(self) -> int:
        """Bytes of the device's memory that this process holds."""
        ...

    def release_memory(self) -> None:
        """Give back to the system what the allocator keeps of freed memory; from any thread."""
        ...

    def cap_memory(self, num_bytes: int, virtual_slack: int = 0) -> str:
        """Bound what this process holds of the device's memory; others are not touched.

        Who asks for more gets an error, of torch or Python. May be called again.

        Args:
            num_bytes: with what it holds now.
            virtual_slack: of the host's memory, bytes that may be mapped above that and never be
                touched.

        Returns:
            How it is held, for the log.

        Raises:
            DeviceError: it is below what is held already, above what there is, or cannot be held.
        """
        ...

    def partition(self, percents: Sequence[int]) -> Sequence[Partition]:
        """Divide the device's processors among tenants that run beside each other.

        Args:
            percents: of each part.

        Returns:
            these parts, and last one of what is left, for all who share that in time.

        Raises:
            DeviceError: more than there is, less than one core or slot, none left, or a kind of
                device that cannot be divided.
        """
        ...
