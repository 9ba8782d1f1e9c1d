"""The processor as a device."""

from pathlib import Path

import psutil
from moe_devices.cgroup import MemoryLimit
from moe_devices.cpu import CpuDevice, processor_name, tightest
from moe_devices.device import Device, Memory


def test_this_host_is_a_device() -> None:
    device: Device = CpuDevice()
    memory = device.memory()
    assert (device.kind, device.collective, str(device.torch_device)) == ("cpu", "mpi", "cpu")
    assert device.name == processor_name(Path("/proc/cpuinfo"))
    assert 0 < memory.free < memory.total <= psutil.virtual_memory().total


def test_memory_is_the_tightest_of_host_and_limits() -> None:
    host = Memory(total=1000, free=700)
    assert tightest(host, []) == host
    assert tightest(host, [MemoryLimit(600, 100)]) == Memory(600, 500)
    assert tightest(host, [MemoryLimit(900, 850), MemoryLimit(600, 100)]) == Memory(600, 50)
    assert tightest(host, [MemoryLimit(600, 650)]) == Memory(600, 0)


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some CPU: 9\nmodel name\t: other\n")
    assert processor_name(file) == "Some CPU: 9"
    file.write_text("processor\t: 0\n")
    assert processor_name(file) == "cpu"
    assert processor_name(tmp_path / "absent") == "cpu"
