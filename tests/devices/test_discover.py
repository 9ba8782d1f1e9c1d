"""Opening devices by kind, and the sentences for those that cannot be opened."""

import pytest
import torch
from moe_devices.device import Device
from moe_devices.discover import available, open_device
from moe_devices.errors import DeviceError


def test_every_rank_on_a_host_opens_the_same_processor() -> None:
    assert open_device("cpu", 0).torch_device == open_device("cpu", 7).torch_device


def test_an_unknown_kind_says_what_is_there() -> None:
    with pytest.raises(
        DeviceError, match=r"'tpu' does not exist; this host has 1 cpu, \d+ cuda, \d+ npu"
    ):
        open_device("tpu", 0)


def test_a_gpu_that_is_not_there_says_how_many_are() -> None:
    count = torch.cuda.device_count()
    with pytest.raises(DeviceError, match=rf"no GPU {count}: .* sees {count};"):
        open_device("cuda", count)


def test_available_counts_the_processor_once() -> None:
    there = available()
    assert (there["cpu"], there["cuda"]) == (1, torch.cuda.device_count())
    assert list(there) == ["cpu", "cuda", "npu"]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() == 0, reason="there is no GPU")
def test_a_gpu_tells_its_memory_and_name() -> None:
    device: Device = open_device("cuda", 0)
    before = device.memory()
    held = torch.empty(1 << 30, dtype=torch.uint8, device=device.torch_device)
    after = device.memory()
    assert (device.kind, device.collective) == ("cuda", "nccl")
    assert "NVIDIA" in device.name
    assert before.total == after.total > before.free >= after.free + held.numel()
    assert torch.accelerator.current_device_index() == 0
