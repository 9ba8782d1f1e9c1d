"""An emulated device: the processor's kernels under a cap and a pace of its own."""

import time

import psutil
import pytest
import torch
from moe_devices.cpu import CpuDevice
from moe_devices.device import Device
from moe_devices.emulated import EmulatedDevice
from moe_devices.errors import DeviceError
from moe_devices.work import ExpertsWork

MIB = 1 << 20


def test_it_computes_as_the_processor_does() -> None:
    device: Device = EmulatedDevice("gpu_like", 64 * MIB)
    assert (device.kind, device.collective, str(device.torch_device)) == ("cpu", "mpi", "cpu")
    assert device.name.startswith("gpu_like, emulated on ")


def test_its_memory_is_a_cap_that_falls_with_what_the_process_takes() -> None:
    device = EmulatedDevice("gpu_like", 256 * MIB)
    before = device.memory()
    held = torch.ones(128 * MIB, dtype=torch.uint8)
    after = device.memory()
    assert before.total == after.total == 256 * MIB
    assert before.free - after.free >= 0.9 * held.numel()
    assert EmulatedDevice("npu_like", MIB).memory().free <= MIB


def test_memory_that_is_all_taken_is_not_negative() -> None:
    device = EmulatedDevice("gpu_like", 8 * MIB)
    held = torch.ones(64 * MIB, dtype=torch.uint8)
    assert device.memory().free == 0
    assert held.numel()


def test_a_host_that_is_smaller_is_refused() -> None:
    too_much = psutil.virtual_memory().total + 1024 * MIB
    with pytest.raises(DeviceError, match=r"emulated gpu_like has .* lower the pool's memory"):
        EmulatedDevice("gpu_like", too_much)
    with pytest.raises(DeviceError, match="time_scale is 0"):
        EmulatedDevice("gpu_like", MIB, 0.0)


def test_it_keeps_the_pace_that_it_is_given_at_its_scale() -> None:
    pacer = EmulatedDevice("gpu_like", MIB, 3.0).pacer(lambda: lambda work: 0.01)
    begun = time.perf_counter()
    pacer.wait(begun, lambda: ExpertsWork((1,)))
    assert time.perf_counter() - begun >= 0.03
    assert pacer.counts["experts"].num_segments == 1


def test_a_real_device_does_not_ask_for_a_pace() -> None:
    pacer = CpuDevice().pacer(lambda: pytest.fail("asked for a pace"))
    pacer.wait(time.perf_counter(), lambda: pytest.fail("asked for the work"))
