"""Disjoint multiprocessors (SMs) of an NVIDIA GPU: green contexts, all from one split.

NEVER RUN ON HARDWARE YET: written after the manual of the CUDA driver API; the calls were run by
cuda-bindings 13.5 over a driver made of 13.0's header that computes nothing. Contexts of different
splits overlap, and work outside any of them runs on every SM: whoever shares the rest of the GPU in
time needs a part of the same split too.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from moe_devices.errors import DeviceError
from moe_devices.partition import units_by_percent
from moe_devices.streams import work_on

# Fewer, and a GPU of compute capability 9.0 or later has no large clusters any more.
_SLOT_SMS = 8


class GreenContext:
    """Implements Partition: a stream whose kernels run on some SMs alone; memory is shared.

    Args:
        slots: SM resources of one split.
    """

    def __init__(self, driver: Any, index: int, slots: Sequence[Any]) -> None:
        self._driver = driver
        self._index = index
        self._num_sms = sum(slot.sm.smCount for slot in slots)
        (device,) = _call(driver, "cuDeviceGet", index)
        (resources,) = _call(driver, "cuDevResourceGenerateDesc", list(slots), len(slots))
        (self._context,) = _call(
            driver,
            "cuGreenCtxCreate",
            resources,
            device,
            driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM,
        )
        (self._stream,) = _call(
            driver,
            "cuGreenCtxStreamCreate",
            self._context,
            driver.CUstream_flags.CU_STREAM_NON_BLOCKING,
            0,
        )

    @property
    def name(self) -> str:
        return f"{self._num_sms} SMs of GPU {self._index}"

    @contextmanager
    def use(self) -> Iterator[None]:
        """What this thread has queued so far is waited for, and later work waits for this one's."""
        stream = torch.cuda.ExternalStream(  # type: ignore[no-untyped-call]
            int(self._stream), device=self._index
        )
        with work_on(torch.cuda, stream, self._index):
            yield

    def close(self) -> None:
        """The stream ends first, and only when its work is done."""
        _call(self._driver, "cuStreamSynchronize", self._stream)
        _call(self._driver, "cuStreamDestroy", self._stream)
        _call(self._driver, "cuGreenCtxDestroy", self._context)


def split_processors(
    index: int, percents: Sequence[int], driver: Any = None
) -> tuple[GreenContext, ...]:
    """Divide a GPU's SMs, in slots of eight -> a part for each percentage, and one of what is left.

    Args:
        driver: the CUDA driver API as cuda-bindings has it, by default.

    Raises:
        DeviceError: more than there is, less than one slot, none left, or no driver for it.
    """
    driver = driver or _load_driver()
    (device,) = _call(driver, "cuDeviceGet", index)
    kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    (whole,) = _call(driver, "cuDeviceGetDevResource", device, kind)
    size = max(_SLOT_SMS, whole.sm.minSmPartitionSize)
    slots, num_slots, _ = _call(
        driver, "cuDevSmResourceSplitByCount", whole.sm.smCount // size, whole, 0, size
    )
    counts = units_by_percent(percents, num_slots, f"slots of {size} SMs")
    ends = [sum(counts[: part + 1]) for part in range(len(counts))]
    return tuple(
        GreenContext(driver, index, slots[end - count : end])
        for count, end in zip(counts, ends, strict=True)
    )


def _load_driver() -> Any:
    try:
        driver = importlib.import_module("cuda.bindings.driver")
        if not hasattr(driver.CUdevSmResource, "minSmPartitionSize"):
            raise ImportError("cuda-bindings is older than 13")
        _call(driver, "cuInit", 0)
    except (ImportError, RuntimeError) as error:
        raise DeviceError(
            f"a GPU's processors cannot be divided here ({error}); install cuda-bindings 13 or "
            "later beside a driver of CUDA 12.4 or later, or share it in time (isolate: time)"
        ) from error
    return driver


def _call(driver: Any, name: str, *arguments: Any) -> tuple[Any, ...]:
    """A driver call's results without its status, which raises DeviceError unless it is success."""
    status, *results = getattr(driver, name)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DeviceError(f"{name}: {status.name}; share the GPU in time (isolate: time)")
    return tuple(results)
