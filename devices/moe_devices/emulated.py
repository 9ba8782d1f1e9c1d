"""A device that is not there: the processor's kernels, with the memory and pace of another kind."""

from collections.abc import Callable, Sequence

import psutil
import torch

from moe_devices.cpu import CpuDevice
from moe_devices.device import Memory
from moe_devices.errors import DeviceError
from moe_devices.memory_cap import private_bytes
from moe_devices.pacer import DeadlinePacer, Pacer
from moe_devices.partition import Partition
from moe_devices.work import Pace


class EmulatedDevice:
    """Computes on the host's processor what another device would, in the time that it would take.

    Its kernels and exchanges are the processor's. Its memory is a cap on what this process takes
    from now on, of this rank alone: ranks do not share it as they share a host's.

    Args:
        name: what is emulated.
        memory: bytes.
        time_scale: all declared times last so many times longer.

    Raises:
        DeviceError: the host has less memory, or the time scale is not above 0.
    """

    kind = "cpu"
    collective = "mpi"
    lends_memory = CpuDevice.lends_memory

    def __init__(self, name: str, memory: int, time_scale: float = 1.0) -> None:
        self._host = CpuDevice()
        total = self._host.memory().total
        if memory > total:
            raise DeviceError(
                f"emulated {name} has {memory / 2**30:.1f} GiB and this host {total / 2**30:.1f}; "
                "lower the pool's memory"
            )
        if time_scale <= 0:
            raise DeviceError(f"emulated {name}: time_scale is {time_scale}; set it above 0")
        self._name = name
        self._memory = memory
        self._time_scale = time_scale
        self._before = _resident_bytes()
        self._private_before = private_bytes()

    @property
    def torch_device(self) -> torch.device:
        return self._host.torch_device

    @property
    def name(self) -> str:
        return f"{self._name}, emulated on {self._host.name}"

    def memory(self) -> Memory:
        taken = max(0, _resident_bytes() - self._before)
        free = min(self._memory - taken, self._host.memory().free)
        return Memory(total=self._memory, free=max(0, free))

    def pacer(self, pace: Callable[[], Pace]) -> Pacer:
        return DeadlinePacer(pace(), self._time_scale)

    @property
    def held_memory(self) -> int:
        return max(0, self._host.held_memory - self._private_before)

    def release_memory(self) -> None:
        self._host.release_memory()

    def cap_memory(self, num_bytes: int, virtual_slack: int = 0) -> str:
        return self._host.cap_memory(self._private_before + num_bytes, virtual_slack)

    def partition(self, percents: Sequence[int]) -> Sequence[Partition]:
        raise DeviceError(
            f"emulated {self._name} cannot be divided: the times declared for it are of the whole; "
            "share it in time (isolate: time)"
        )


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)
