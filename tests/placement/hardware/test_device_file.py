"""A user's own device: read strictly, and written back as it was."""

import re
from dataclasses import replace

import pytest
from hardware_files import ONE_DEVICE, WriteFile
from moe_placement.hardware.catalogue import find_device, load_catalogue
from moe_placement.hardware.device import ExpertCurve, ExpertEfficiency, Plane
from moe_placement.hardware.device_file import device_text
from moe_placement.hardware.section import HardwareError


def test_a_device_of_a_file(write_file: WriteFile) -> None:
    device = find_device(write_file())
    assert (device.name, device.kind, device.memory_bytes) == ("bench", "cpu", 64 * 2**30)
    assert device.flops == {"bfloat16": 2e12, "int8": 4e12}
    assert (device.devices_per_node, device.link_latency) == (8, 5e-6)
    assert find_device(str(write_file())) == device


@pytest.mark.parametrize("name", sorted(load_catalogue()))
def test_written_and_read_again(name: str, write_file: WriteFile) -> None:
    curve = ExpertCurve((Plane(0.0, 1e-11, 0.0), Plane(2e-4, 0.0, 5e-12)))
    device = replace(
        find_device(name),
        link_latency=0.0,
        curves={"bfloat16": curve},
        expert_efficiency={"int8": ExpertEfficiency(0.5, 0.25)},
    )
    assert find_device(write_file(device_text(device))) == device


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: cpu", "kind: tpu", "devices.bench.kind is 'tpu'; write one of cpu, cuda, npu"),
        ("100GB/s", "100GB", "devices.bench.bandwidth is '100GB'; write a rate such as 25GB/s"),
        ("    bandwidth: 100GB/s\n", "", "devices.bench.bandwidth is missing; write a rate"),
        ("bandwidth: 100", "bandwith: 100", 'bandwidth is missing; write .* (found "bandwith")'),
        ("int8:", "int7:", "unknown key 'devices.bench.flops.int7'; did you mean \"int8\"?"),
        ("int8: 4TFLOP/s", "int8: fast", "devices.bench.flops.int8 is 'fast'; write a rate"),
        (
            "kind: cpu",
            "kind: cpu\n    latency: 3",
            "unknown key 'devices.bench.latency'; did you mean",
        ),
        ("kind: cpu", "kind: cpu\n    kind: npu", "line 4: key 'kind' is there twice; keep one"),
        ("{bfloat16: 2TFLOP/s, int8: 4TFLOP/s}", "{}", "flops is empty; give at least bfloat16"),
        ("{bfloat16: 2TFLOP/s, int8: 4TFLOP/s}", "2", "flops is 2; write keys and values"),
        ("kind: cpu", "kind: cpu\n    sources: {speed: x}", "sources names no figure 'speed'"),
        ("kind: cpu", "kind: cpu\n    aliases: {a: b}", "aliases is {'a': 'b'}; write a list"),
        ("devices:", "devicez:", "devicez"),
        ("devices:", "devices: {", "line"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str, write_file: WriteFile) -> None:
    assert old in ONE_DEVICE
    path = write_file(ONE_DEVICE.replace(old, new))
    pattern = re.escape(message).replace(re.escape(".*"), ".*")
    with pytest.raises(HardwareError, match=pattern) as caught:
        find_device(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_has_one_device(write_file: WriteFile) -> None:
    second = ONE_DEVICE.partition("devices:\n")[2].replace("bench", "other")
    with pytest.raises(HardwareError, match="describes bench, other; keep one"):
        find_device(write_file(ONE_DEVICE + second))


def test_a_file_that_is_not_there(write_file: WriteFile) -> None:
    with pytest.raises(HardwareError, match=r"none\.yaml cannot be read: No such file"):
        find_device(write_file().with_name("none.yaml"))
