"""The threads that torch computes with: each thread that runs its ops has a team of its own."""

import ctypes
import os
from collections.abc import Callable, Collection

import torch

from moe_devices.errors import DeviceError

_Region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def bind_team(cores: Collection[int], num_threads: int) -> None:
    """Bind this thread and its OpenMP team to some cores, by their numbers.

    A team's threads inherit the mask of who starts it, and keep it: those that exist already have
    to bind themselves. A parallel region of the runtime that torch uses reaches them.

    Args:
        num_threads: of the team, at least as many as it has; those that it has not yet start.

    Raises:
        DeviceError: the system lets nobody be bound, or not to these cores.
    """
    refusals: list[OSError] = []

    def bind() -> None:
        try:
            os.sched_setaffinity(0, cores)
        except OSError as error:
            refusals.append(error)

    if not hasattr(os, "sched_setaffinity"):
        raise DeviceError("this system binds no threads to cores; share the device in time")
    bind()
    _in_team(bind, num_threads)
    if refusals:
        raise DeviceError(f"cannot bind threads to cores {sorted(cores)}: {refusals[0].strerror}")


def _in_team(task: Callable[[], None], num_threads: int) -> None:
    """Run a task once in each thread of this thread's team (GNU's entry of parallel regions, which
    LLVM's and Intel's runtimes have too)."""
    try:
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError) as error:
        raise DeviceError(
            f"this torch does not compute with OpenMP ({error}); share the device in time"
        ) from error
    parallel.argtypes = [_Region, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    parallel(_Region(lambda _: task()), None, num_threads, 0)
