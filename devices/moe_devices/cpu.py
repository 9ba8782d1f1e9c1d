"""The host's processor as a device."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

from moe_devices.cgroup import ControlGroup, MemoryLimit
from moe_devices.cpu_partition import partition_cores
from moe_devices.device import Memory
from moe_devices.memory_cap import cap_process_memory, private_bytes
from moe_devices.pacer import Pacer, RealTime
from moe_devices.partition import Partition
from moe_devices.work import Pace


class CpuDevice:
    """The cores that this rank is bound to; its memory is the host's, shared by the ranks."""

    kind = "cpu"
    collective = "mpi"
    lends_memory = sys.platform == "linux"

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def name(self) -> str:
        return processor_name(Path("/proc/cpuinfo"))

    def memory(self) -> Memory:
        host = psutil.virtual_memory()
        limits = ControlGroup.mine().memory_limits()
        return tightest(Memory(total=host.total, free=host.available), limits)

    def pacer(self, pace: Callable[[], Pace]) -> Pacer:
        return RealTime()

    @property
    def held_memory(self) -> int:
        return private_bytes()

    def release_memory(self) -> None:
        # Of glibc; other C libraries keep little.
        if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
            library.malloc_trim(0)

    def cap_memory(self, num_bytes: int, virtual_slack: int = 0) -> str:
        return cap_process_memory(num_bytes, virtual_slack)

    def partition(self, percents: Sequence[int]) -> Sequence[Partition]:
        return partition_cores(percents)


def tightest(host: Memory, limits: Sequence[MemoryLimit]) -> Memory:
    """What is left of the host's memory under every limit."""
    return Memory(
        total=min([host.total, *(limit.total for limit in limits)]),
        free=max(0, min([host.free, *(limit.total - limit.used for limit in limits)])),
    )


def processor_name(cpuinfo: Path) -> str:
    """The first processor's model name; "cpu" where the system does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return "cpu"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "cpu")
