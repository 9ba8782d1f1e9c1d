"""Disjoint cores of the host for work that runs beside other work."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from moe_devices.errors import DeviceError
from moe_devices.openmp import bind_team
from moe_devices.partition import units_by_percent
from moe_devices.threads import Core, physical_cores


@dataclass(frozen=True, slots=True)
class CorePartition:
    """Implements Partition.

    Attributes:
        cores: physical ones.
        num_threads: that torch computes with here.
    """

    cores: tuple[Core, ...]
    num_threads: int

    @property
    def name(self) -> str:
        return f"cores {', '.join(str(core[0]) for core in self.cores)}"

    @contextmanager
    def use(self) -> Iterator[None]:
        """Raises DeviceError where threads cannot be bound."""
        mask, num_threads = os.sched_getaffinity(0), torch.get_num_threads()
        most = max(num_threads, self.num_threads)
        try:
            bind_team({number for core in self.cores for number in core}, most)
            torch.set_num_threads(self.num_threads)
            yield
        finally:
            torch.set_num_threads(num_threads)
            bind_team(mask, most)

    def close(self) -> None:
        return


def partition_cores(percents: Sequence[int]) -> tuple[CorePartition, ...]:
    """Divide the cores that this thread may run on, and torch's threads with them -> a part for
    each percentage, and one of what is left.

    Called before any part is used; the parts lie beside each other, in order of core number.

    Raises:
        DeviceError: more than there is, less than one core, none left, or a system that binds no
            threads.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise DeviceError("this system binds no threads to cores; share the device in time")
    cores = physical_cores(sorted(os.sched_getaffinity(0)), Path("/sys/devices/system/cpu"))
    counts = units_by_percent(percents, len(cores), "cores")
    ends = [sum(counts[: part + 1]) for part in range(len(counts))]
    num_threads = torch.get_num_threads()
    return tuple(
        CorePartition(cores[end - count : end], min(count, num_threads))
        for count, end in zip(counts, ends, strict=True)
    )
