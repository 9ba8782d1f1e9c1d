"""Memory caps on real processes: who asks for more gets an error, and nobody else does."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from moe_devices.cgroup import ControlGroup
from moe_devices.cuda import CudaDevice
from moe_devices.errors import DeviceError
from moe_devices.memory_cap import share_of_memory
from own_limits import may_limit_memory

MIB = 1 << 20
# Small tensors first come from memory that is mapped already.
ASKS_FOR_EVER_MORE = """
import sys
import torch
from moe_devices.cpu import CpuDevice
from moe_devices.emulated import EmulatedDevice
from moe_devices.memory_cap import private_bytes
MIB = 1 << 20
# The stack of each further thread would be mapped beside what is asked for.
torch.set_num_threads(1)
device = CpuDevice()
used = private_bytes()
try:
    device.cap_memory(used - MIB)
except OSError as error:
    print(type(error).__name__, error)
print(device.cap_memory(used + 64 * MIB))
held = []
try:
    while len(held) < 200:
        held.append(torch.ones(MIB, dtype=torch.uint8))
except RuntimeError as error:
    print(len(held), "can't allocate memory" in str(error), private_bytes() <= used + 64 * MIB)
input()
held.clear()
print(torch.ones(50 * MIB, dtype=torch.uint8).numel() // MIB)
device.cap_memory(used + 160 * MIB)
print(torch.ones(150 * MIB, dtype=torch.uint8).numel() // MIB)
try:
    bytearray(400 * MIB)
except MemoryError:
    print("MemoryError")
emulated = EmulatedDevice("a card", 1 << 30)
mine = torch.ones(10 * MIB, dtype=torch.uint8)
emulated.cap_memory(100 * MIB)
try:
    torch.ones(120 * MIB, dtype=torch.uint8)
except RuntimeError:
    print(torch.ones(80 * MIB, dtype=torch.uint8).numel() // MIB)
"""
# Maps 200 MiB more than the cap, and touches so many of them.
TOUCHES = """
import sys
from pathlib import Path
import numpy as np
from moe_devices.cgroup import ControlGroup
from moe_devices.memory_cap import cap_process_memory, private_bytes
MIB = 1 << 20
group = ControlGroup(Path(sys.argv[2]), "") if len(sys.argv) > 2 else None
print(cap_process_memory(private_bytes() + 64 * MIB, 200 * MIB, group), flush=True)
cache = np.zeros(250 * MIB, np.uint8)
cache[: int(sys.argv[1]) * MIB] = 1
print("alive")
try:
    np.zeros(100 * MIB, np.uint8)
except MemoryError as error:
    print("MemoryError")
"""


# Reads a file of 100 MiB between two calls for the same cap -> the bounds of its group.
READS_BETWEEN = """
import sys
from pathlib import Path
import numpy as np
from moe_devices.cgroup import ControlGroup
from moe_devices.memory_cap import cap_process_memory, private_bytes
MIB = 1 << 20
cap = private_bytes() + 256 * MIB
for _ in range(2):
    cap_process_memory(cap, 200 * MIB)
    folder = ControlGroup.mine().memory_folder()
    bounds = [folder / name for name in ("memory.limit_in_bytes", "memory.max")]
    print(next(bound.read_text().strip() for bound in bounds if bound.exists()))
    held = np.ones(32 * MIB, np.uint8)
    with open(sys.argv[1], "rb") as file:
        while file.read(MIB):
            pass
"""


def touch(*arguments: str) -> tuple[int, str, Path]:
    """-> how it ended, what it said, and where its control group is, while it is there."""
    command = [sys.executable, "-c", TOUCHES, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    folder = ControlGroup.mine().memory_folder() / f"moe-memory-{process.pid}"
    return process.returncode, said, folder


@contextmanager
def asking() -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", ASKS_FOR_EVER_MORE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_who_asks_for_more_than_its_cap_gets_an_error_and_its_neighbour_does_not() -> None:
    with asking() as process:
        assert process.stdin is not None and process.stdout is not None
        refusal, held, full = (process.stdout.readline() for _ in range(3))
        # The other one is at its cap now.
        assert torch.ones(200 * MIB, dtype=torch.uint8).numel() == 200 * MIB
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read().split() == ["50", "150", "MemoryError", "80"]
    assert refusal.startswith("DeviceError a cap of ") and refusal.count(" MiB") == 2
    assert "an error for who asks for more" in held and "kills" not in held
    num_tensors, is_clear, is_within = full.split()
    assert 60 <= int(num_tensors) <= 64
    assert (is_clear, is_within) == ("True", "True")


@pytest.mark.skipif(not may_limit_memory(), reason="control groups may not be written here")
def test_what_is_mapped_beyond_the_cap_may_not_be_touched() -> None:
    code, said, group = touch("60")
    assert code == 0 and said.split()[-2:] == ["alive", "MemoryError"]
    assert "the system kills it where it touches 97.3 MiB more than now" in said
    assert not group.exists()
    code, said, group = touch("240")
    assert code == -signal.SIGKILL and "alive" not in said
    assert group.exists()
    touch("1")
    assert not group.exists()


@pytest.mark.skipif(not may_limit_memory(), reason="control groups may not be written here")
def test_files_that_were_read_do_not_raise_a_cap_that_is_set_again(tmp_path: Path) -> None:
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(100 * MIB)
    command = [sys.executable, "-c", READS_BETWEEN, str(tmp_path / "weights")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    first, second = map(int, done.stdout.split())
    assert abs(second - first) < 8 * MIB


def test_where_no_group_may_be_made_the_sentence_says_what_is_not_held(tmp_path: Path) -> None:
    code, said, _ = touch("240", str(tmp_path))
    assert f"nothing keeps it from touching those ({tmp_path}: " in said
    assert code == 0 and said.split()[-2:] == ["alive", "MemoryError"]


def test_a_cap_is_a_share_of_the_devices_memory() -> None:
    assert share_of_memory(3 * MIB, 12 * MIB, MIB) == 0.25
    with pytest.raises(DeviceError, match=r"a cap of 3\.0 MiB is below the 4\.0 MiB in use"):
        share_of_memory(3 * MIB, 12 * MIB, 4 * MIB)
    with pytest.raises(DeviceError, match=r"a cap of 3\.0 MiB is above the 2\.0 MiB there are"):
        share_of_memory(3 * MIB, 2 * MIB, 0)


@pytest.mark.gpu
def test_a_gpu_refuses_what_is_above_the_cap() -> None:
    device = CudaDevice(0)
    held = torch.cuda.memory_reserved(0)
    try:
        device.cap_memory(held + 256 * MIB)
        with pytest.raises(torch.OutOfMemoryError):
            torch.ones(257 * MIB, dtype=torch.uint8, device="cuda")
        within = torch.ones(230 * MIB, dtype=torch.uint8, device="cuda")
        assert within.numel() == 230 * MIB
        with pytest.raises(DeviceError, match="in use already"):
            device.cap_memory(MIB)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
