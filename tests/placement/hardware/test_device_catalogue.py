"""The shipped devices: what there is, what they can compute, and a source for every figure."""

import re
from importlib.resources import files

import pytest
from moe_placement.hardware.catalogue import find_device, load_catalogue
from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.device_file import figures_of
from moe_placement.hardware.section import HardwareError


@pytest.fixture(params=sorted(load_catalogue()))
def device(request: pytest.FixtureRequest) -> DeviceSpec:
    return load_catalogue()[request.param]


@pytest.mark.parametrize(
    ("name", "flops", "bandwidth", "gibibytes"),
    [
        ("a100_sxm", {"bfloat16": 312e12, "int8": 624e12}, 2.039e12, 80),
        ("h100_sxm", {"bfloat16": 989e12, "fp8": 1978e12}, 3.35e12, 80),
        ("h800", {"bfloat16": 989e12}, 3.35e12, 80),
        ("h20", {"bfloat16": 148e12, "fp8": 296e12}, 4.0e12, 96),
        ("h200_sxm", {"bfloat16": 989e12, "fp8": 1978e12}, 4.8e12, 141),
        ("b200_sxm", {"bfloat16": 2250e12, "fp4": 9000e12}, 7.7e12, 180),
        ("gb200", {"bfloat16": 2500e12, "fp4": 10000e12}, 8.0e12, 189471 / 1024),
        ("l40s", {"bfloat16": 362.05e12, "fp8": 733e12}, 0.864e12, 46068 / 1024),
        ("rtx_pro_6000", {"bfloat16": 467.8e12}, 1.792e12, 97887 / 1024),
        ("atlas_a2_376t", {"bfloat16": 353.9e12, "int8": 752e12}, 1.759e12, 64),
        ("910c", {"bfloat16": 353.9e12}, 1.759e12, 64),
        ("atlas_350_84g", {"bfloat16": 378e12, "fp8": 756e12}, 1.539e12, 84),
    ],
)
def test_figures(name: str, flops: dict[str, float], bandwidth: float, gibibytes: float) -> None:
    found = find_device(name)
    assert found.flops.items() >= flops.items()
    assert found.bandwidth == bandwidth
    assert found.memory_bytes == gibibytes * 2**30


def test_every_figure_has_a_source(device: DeviceSpec) -> None:
    missing = [name for name in figures_of(device) if not device.sources.get(name)]
    assert missing == []


def test_sources_are_resolved(device: DeviceSpec) -> None:
    text = (files("moe_placement") / "data" / "devices.yaml").read_text("utf-8")
    keys = re.findall(r"^  (\w+): \S", text.partition("devices:")[0], re.MULTILINE)
    assert "aiconfigurator" in keys
    unresolved = [source for source in device.sources.values() if source.split(":")[0] in keys]
    assert unresolved == []


def test_general_knowledge_is_called_so() -> None:
    assert all("to verify" in find_device("xeon_6980p").sources[name] for name in ("flops",))


def test_formats_that_a_device_lacks_are_absent() -> None:
    assert "fp8" not in find_device("a100").flops
    for name, found in load_catalogue().items():
        if name.startswith(("atlas_a2", "ascend_910c")):
            assert not found.flops.keys() & {"fp8", "fp4"}


def test_figures_are_possible(device: DeviceSpec) -> None:
    assert device.network_bandwidth <= device.link_bandwidth <= device.bandwidth or (
        device.name == "l40s" and device.link_bandwidth < device.network_bandwidth
    )
    assert device.flops["bfloat16"] / device.bandwidth > 10
    assert device.devices_per_domain % device.devices_per_node == 0


@pytest.mark.parametrize("alias", ["h200", "H200-SXM", "h200_sxm"])
def test_aliases(alias: str) -> None:
    assert find_device(alias) is load_catalogue()["h200_sxm"]


def test_no_name_is_taken_twice() -> None:
    text = (files("moe_placement") / "data" / "devices.yaml").read_text("utf-8")
    aliases = [
        alias.strip()
        for line in re.findall(r"aliases: \[(.*)\]", text)
        for alias in line.split(",")
    ]
    names = [*load_catalogue(), *aliases]
    assert sorted(set(names)) == sorted(names)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(HardwareError, match=r"'h300_sxm'.*nearest: .*h[12]00_sxm"):
        find_device("h300_sxm")
    with pytest.raises(HardwareError, match=r"it has a100_sxm, .*epyc_9965"):
        find_device("???")
