"""Processes that know nothing of each other, each held to its share of a core's time."""

import subprocess
import sys
from pathlib import Path

import pytest
from moe_devices.cgroup import ControlGroup
from moe_devices.errors import DeviceError
from moe_devices.process_share import process_share
from own_limits import may_limit_time

# Takes all the time that it gets, in two processes. Prints how many cores' worth that was, and in
# which share of the periods the bound was what ended it, rather than other work on this machine.
BUSY = """
import os, sys, time
from moe_devices.cgroup import ControlGroup
from moe_devices.process_share import process_share
go, say_go = os.pipe()
child = os.fork()
if not child:
    os.close(say_go)
    os.read(go, 1)
    last = time.perf_counter() + float(sys.argv[2])
    while time.perf_counter() < last:
        pass
    os._exit(0)
process_share(int(sys.argv[1]), 1.0)
folder = ControlGroup.mine().processor_folder()
def counts():
    found = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
    return int(found["nr_periods"]), int(found["nr_throttled"])
# Whatever else runs on this machine leaves what the bound grants, as far as it lets itself be told.
weights = (folder / "cpu.shares", 250000), (folder / "cpu.weight", 10000)
file, most = next(each for each in weights if each[0].exists())
file.write_text(str(most))
print("ready", flush=True)
input()
periods, bounded = counts()
begun, used, seconds = time.perf_counter(), time.process_time(), float(sys.argv[2])
os.write(say_go, b".")
while time.perf_counter() - begun < seconds:
    pass
os.wait()
used = (sum(os.times()[:4]) - used) / (time.perf_counter() - begun)
print(used, (counts()[1] - bounded) / max(1, counts()[0] - periods))
"""
needs_groups = pytest.mark.skipif(
    not may_limit_time(), reason="control groups may not be written here"
)


def start(percent: int, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUSY, str(percent), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def group_of(process: "subprocess.Popen[str]") -> Path:
    return ControlGroup.mine().processor_folder() / f"moe-share-{process.pid}"


@needs_groups
def test_two_processes_get_30_and_70_percent_with_their_children() -> None:
    processes = [start(30, 2.0), start(70, 2.0)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process, share in zip(processes, (0.30, 0.70), strict=True):
        used, bounded = map(float, process.communicate(timeout=60)[0].split())
        assert share * bounded - 0.03 < used < share + 0.03
        assert bounded > 0.2
    assert not any(group_of(process).exists() for process in processes)


@needs_groups
def test_the_group_of_a_process_that_was_killed_goes_with_the_next_start() -> None:
    killed = start(1, 0.0)
    killed.kill()
    killed.communicate(timeout=60)
    assert group_of(killed).exists()
    following = start(50, 0.0)
    assert not group_of(killed).exists()
    assert group_of(following).exists()
    following.communicate("\n", timeout=60)
    assert not group_of(following).exists()


def test_all_of_the_time_needs_no_group(tmp_path: Path) -> None:
    assert process_share(100, 2.0, ControlGroup(tmp_path, "")) == "100 % of 2 cores' time"


def test_where_no_group_may_be_made_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError,
        match=rf"cannot hold this process to 30 % of 2 cores' time: {tmp_path} gives .*; run as "
        r"root .*CPUQuota=60%$",
    ):
        process_share(30, 2.0, ControlGroup(tmp_path, ""))
    assert list(tmp_path.iterdir()) == []
