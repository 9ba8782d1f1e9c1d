"""Finds and opens this host's devices."""

import torch

from moe_devices.cpu import CpuDevice
from moe_devices.cuda import CudaDevice
from moe_devices.device import Device
from moe_devices.errors import DeviceError
from moe_devices.npu import NpuDevice, count_npus


def available() -> dict[str, int]:
    """How many devices of each kind this host has; its processor is one."""
    return {"cpu": 1, "cuda": torch.cuda.device_count(), "npu": count_npus()}


def open_device(kind: str, index: int) -> Device:
    """The device that a rank drives from now on.

    Args:
        kind: cpu, cuda or npu.
        index: among this host's devices of the kind; every rank on a CPU shares the one.

    Raises:
        DeviceError: an unknown kind, or a device that is not there.
    """
    if kind == "cpu":
        return CpuDevice()
    if kind == "cuda":
        return CudaDevice(index)
    if kind == "npu":
        return NpuDevice(index)
    there = ", ".join(f"{count} {kind}" for kind, count in available().items())
    raise DeviceError(f"device {kind!r} does not exist; this host has {there}")
