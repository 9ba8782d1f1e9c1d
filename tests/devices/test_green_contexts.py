"""A GPU's processors divided: the driver calls and their order here, the real thing on a GPU."""

import sys
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from moe_devices.cuda import CudaDevice
from moe_devices.errors import DeviceError
from moe_devices.green_contexts import GreenContext, split_processors


class Result(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NOT_SUPPORTED = 801


class Driver:
    """Keeps what the driver would of an H100's 132 SMs, and refuses what the manual forbids."""

    CUresult = Result
    CUdevResourceType = SimpleNamespace(CU_DEV_RESOURCE_TYPE_SM=1)
    CUgreenCtxCreate_flags = SimpleNamespace(CU_GREEN_CTX_DEFAULT_STREAM=1)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)

    def __init__(self, no_contexts: bool = False) -> None:
        self._no_contexts = no_contexts
        self._handles = count(1)
        self.num_splits = 0
        self.contexts: dict[int, tuple[int, ...]] = {}
        self.streams: dict[int, int] = {}

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return Result.CUDA_SUCCESS, ordinal

    def cuDeviceGetDevResource(self, device: int, kind: int) -> tuple[Any, ...]:
        assert kind == 1
        return Result.CUDA_SUCCESS, resource(range(132))

    def cuDevSmResourceSplitByCount(
        self, num_groups: int, whole: Any, flags: int, least: int
    ) -> tuple[Any, ...]:
        assert flags == 0 and least % 8 == 0
        self.num_splits += 1
        groups = [resource(range(least * n, least * n + least)) for n in range(num_groups)]
        return Result.CUDA_SUCCESS, groups, num_groups, resource(range(least * num_groups, 132))

    def cuDevResourceGenerateDesc(self, resources: list[Any], num: int) -> tuple[Any, ...]:
        assert len(resources) == num
        return Result.CUDA_SUCCESS, tuple(sm for each in resources for sm in each.which)

    def cuGreenCtxCreate(self, sms: tuple[int, ...], device: int, flags: int) -> tuple[Any, ...]:
        assert flags == 1
        if self._no_contexts:
            return Result.CUDA_ERROR_NOT_SUPPORTED, None
        handle = next(self._handles)
        self.contexts[handle] = sms
        return Result.CUDA_SUCCESS, handle

    def cuGreenCtxStreamCreate(self, context: int, flags: int, priority: int) -> tuple[Any, ...]:
        assert flags == 1
        handle = next(self._handles)
        self.streams[handle] = context
        return Result.CUDA_SUCCESS, handle

    def cuStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return (Result.CUDA_SUCCESS,)

    def cuStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        del self.streams[stream]
        return (Result.CUDA_SUCCESS,)

    def cuGreenCtxDestroy(self, context: int) -> tuple[Any, ...]:
        assert context not in self.streams.values(), "its stream would leak"
        del self.contexts[context]
        return (Result.CUDA_SUCCESS,)


def resource(sms: range) -> SimpleNamespace:
    return SimpleNamespace(which=sms, sm=SimpleNamespace(smCount=len(sms), minSmPartitionSize=8))


def test_parts_are_merged_slots_of_one_split() -> None:
    driver = Driver()
    parts = split_processors(0, [25, 10], driver)
    assert driver.num_splits == 1
    assert [part.name for part in parts] == [
        "32 SMs of GPU 0",
        "16 SMs of GPU 0",
        "80 SMs of GPU 0",  # what is left
    ]
    taken = [sm for sms in driver.contexts.values() for sm in sms]
    assert len(set(taken)) == len(taken) == 128
    assert sorted(driver.streams.values()) == sorted(driver.contexts)
    for part in parts:
        part.close()
    assert not driver.streams and not driver.contexts


@pytest.mark.parametrize(
    ("split", "refusal"),
    [
        (lambda: split_processors(0, [6], Driver()), "6 % of 16 slots of 8 SMs is 0.96"),
        (lambda: split_processors(0, [60, 41], Driver()), "more than the 16 slots of 8 SMs"),
        (lambda: split_processors(0, [50, 50], Driver()), "take all 16 slots of 8 SMs"),
        (
            lambda: split_processors(0, [50], Driver(no_contexts=True)),
            "cuGreenCtxCreate: CUDA_ERROR_NOT_SUPPORTED",
        ),
    ],
)
def test_what_a_gpu_cannot_do_is_refused(
    split: Callable[[], tuple[GreenContext, ...]], refusal: str
) -> None:
    with pytest.raises(DeviceError, match=refusal):
        split()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_the_driver_says_what_is_missing() -> None:
    with pytest.raises(DeviceError, match=r"cannot be divided here \(.*install cuda-bindings"):
        split_processors(0, [50])


def test_bindings_that_are_too_old_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old: Any = ModuleType("cuda.bindings.driver")
    old.CUdevSmResource = type("CUdevSmResource", (), {"smCount": 132})
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, old.__name__, old)
    with pytest.raises(DeviceError, match=r"\(cuda-bindings is older than 13\); install"):
        split_processors(0, [50])


@pytest.mark.gpu
def test_kernels_of_two_parts_of_a_gpu_give_what_the_whole_gives() -> None:
    """Not yet run on hardware."""
    device = CudaDevice(0)
    matrix = torch.randn(2048, 2048, device=device.torch_device)
    whole = matrix @ matrix
    parts = device.partition([25])
    seconds = []
    for part in parts:
        with part.use():
            product = matrix @ matrix
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            for _ in range(20):
                matrix @ matrix
            ended.record()
        torch.cuda.synchronize()
        torch.testing.assert_close(product, whole)
        seconds.append(begun.elapsed_time(ended))
        part.close()
    # A quarter of the processors takes longer than three quarters.
    assert seconds[0] > 1.5 * seconds[1]
