"""Processor time bounded for real where this machine lets us, and in a made-up tree elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
from moe_devices.cgroup import ControlGroup
from moe_devices.errors import DeviceError
from moe_devices.quota import processor_quota
from own_limits import may_limit_time

# Prints the share of one core that a busy process gets, after it has entered the folder.
BUSY = """
import sys, time
from pathlib import Path
from moe_devices.quota import enter
enter(Path(sys.argv[1]))
begun, used = time.perf_counter(), time.process_time()
while time.perf_counter() - begun < 0.5:
    pass
print((time.process_time() - used) / (time.perf_counter() - begun))
"""


@pytest.mark.skipif(not may_limit_time(), reason="control groups may not be written here")
def test_a_process_gets_its_quota_and_the_group_ends_with_the_context() -> None:
    with processor_quota("moe-test", 0.25) as folder:
        command = [sys.executable, "-c", BUSY, str(folder)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        assert folder.is_dir()
    assert 0.02 < float(out) < 0.35
    assert not folder.exists()


@pytest.mark.skipif(not may_limit_time(), reason="control groups may not be written here")
def test_who_is_left_goes_back_when_the_context_ends() -> None:
    with processor_quota("moe-test", 0.5) as folder:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        (folder / "cgroup.procs").write_text(str(child.pid))
        assert str(child.pid) in (folder / "cgroup.procs").read_text().split()
    assert not folder.exists()
    assert child.poll() is None
    child.communicate(b"\n", timeout=60)


def test_a_group_that_cannot_be_bounded_is_refused(tmp_path: Path) -> None:
    """A made-up tree makes no files by itself: the group is refused and taken away again."""
    (tmp_path / "job").mkdir()
    with (
        pytest.raises(DeviceError, match=rf"cannot bound processor time under {tmp_path}/job: "),
        processor_quota("moe-test", 0.5, ControlGroup(tmp_path, "0::/job\n")),
    ):
        pass
    assert list((tmp_path / "job").iterdir()) == []


def test_a_system_without_control_groups_says_so(tmp_path: Path) -> None:
    absent = ControlGroup(tmp_path / "absent", "")
    with (
        pytest.raises(DeviceError, match="give slow ranks a core to share"),
        processor_quota("moe-test", 0.5, absent),
    ):
        pass
