"""What a calibration measured becomes a device that files may name."""

import pytest
from hardware_files import WriteFile, measurement, point
from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.curves import expert_curve
from moe_placement.hardware.device_file import device_text, figures_of
from moe_placement.hardware.measured_device import Surroundings, measured_device
from moe_placement.hardware.section import HardwareError

AROUND = Surroundings(link_latency=5e-6, network_bandwidth=25e9, network_latency=1e-5)


def test_peaks_and_shares() -> None:
    device, _ = measured_device("here", measurement(), AROUND)
    assert (device.name, device.kind, device.flops["bfloat16"]) == ("here", "cpu", 220e9)
    assert (device.bandwidth, device.link_bandwidth) == (25e9, 10e9)
    assert (device.compute_efficiency, device.network_latency) == (1.0, 1e-5)
    assert 0.6 < device.memory_efficiency < 0.8


def test_the_curve_fits_and_says_how_well() -> None:
    device, (report,) = measured_device("here", measurement(), AROUND)
    assert (report.weight_format, report.num_points, report.num_held_out) == ("bfloat16", 12, 2)
    assert report.worst < 0.01
    assert report.held_out_median <= report.held_out_worst < 0.01
    unseen = point(5, 20, True)
    seconds = expert_curve(device, "bfloat16").seconds(unseen["bytes"], unseen["flops"])
    assert seconds == pytest.approx(unseen["seconds"], rel=0.01)


def test_it_is_written_with_its_sources(write_file: WriteFile) -> None:
    device, _ = measured_device("here", measurement(), AROUND)
    assert find_device(write_file(device_text(device))) == device
    assert "Made Up 9000, 2 threads" in device.sources["curves"]
    assert "not measured" in device.sources["network_bandwidth"]
    assert set(figures_of(device)) <= set(device.sources)


def test_too_few_sizes_are_refused() -> None:
    with pytest.raises(HardwareError, match=r"9 sizes of bfloat16 .* needs 12; give it more sec"):
        measured_device("here", measurement(num_experts=3), AROUND)
