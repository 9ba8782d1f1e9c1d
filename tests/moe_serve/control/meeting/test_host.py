"""Memory and cores without torch are those that the devices report with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from moe_devices.cgroup import ControlGroup
from moe_devices.cpu import CpuDevice
from moe_devices.threads import num_threads, physical_cores, share_of_cores

from moe_serve.control.meeting.host import cores_per_rank, gpu_memory, host_memory, threads_per_rank


def test_memory_is_the_device_s() -> None:
    assert host_memory() == CpuDevice().memory().total


@pytest.mark.parametrize("num_ranks", [1, 2, 4096])
def test_threads_are_those_that_ranks_will_have(num_ranks: int) -> None:
    group = ControlGroup.mine()
    logical = group.logical_cores() or tuple(range(os.cpu_count() or 1))
    cores = physical_cores(logical, Path("/sys/devices/system/cpu"))
    expected = num_threads(cores, group.processor_quota(), 0, num_ranks)
    assert threads_per_rank(num_ranks) == expected


@pytest.mark.parametrize("num_ranks", [1, 2, 4096])
def test_cores_are_the_least_that_a_rank_will_have(num_ranks: int) -> None:
    logical = ControlGroup.mine().logical_cores() or tuple(range(os.cpu_count() or 1))
    cores = physical_cores(logical, Path("/sys/devices/system/cpu"))
    ranks = range(min(num_ranks, 8))
    expected = min(len(share_of_cores(cores, rank, num_ranks)) for rank in ranks)
    assert cores_per_rank(num_ranks) == expected


def test_a_driver_that_answers_nonsense_shows_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho '[Not Supported]'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpu_memory() is None
    driver.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_memory() is None


def test_a_network_of_its_own_makes_a_host() -> None:
    apart = ["unshare", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("no right to unshare the network")
    asked = "from moe_serve.control.meeting.host import host_identity; print(host_identity())"
    here, again, there = (
        subprocess.run([*prefix, sys.executable, "-c", asked], capture_output=True, check=True)
        for prefix in ([], [], apart)
    )
    assert here.stdout == again.stdout != b"\n"
    assert there.stdout not in (b"\n", here.stdout)
