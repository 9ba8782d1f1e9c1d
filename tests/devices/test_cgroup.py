"""Limits read from made-up cgroup trees of both versions."""

from pathlib import Path

import pytest
from moe_devices.cgroup import ControlGroup, MemoryLimit, parse_core_list


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_version_2_counts_every_limit_up_to_the_root(tmp_path: Path) -> None:
    write(tmp_path / "a", memory__max="1000", memory__current="600")
    write(
        tmp_path / "a" / "b",
        memory__max="800",
        memory__current="500",
        memory__stat="anon 100\ninactive_file 50",
    )
    write(tmp_path / "a" / "b" / "c", memory__max="max", memory__current="500")
    group = ControlGroup(tmp_path, "0::/a/b/c\n")
    assert group.memory_limits() == (MemoryLimit(800, 450), MemoryLimit(1000, 600))


def test_version_1_ignores_its_word_for_unlimited(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    write(memory, memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="5")
    write(
        memory / "job",
        memory__limit_in_bytes="4096",
        memory__usage_in_bytes="1000",
        memory__stat="total_inactive_file 24",
    )
    group = ControlGroup(tmp_path, "4:memory:/job\n3:cpuset:/\n0::/\n")
    assert group.memory_limits() == (MemoryLimit(4096, 976),)


def test_a_path_of_the_host_falls_back_to_the_mount(tmp_path: Path) -> None:
    write(tmp_path / "memory", memory__limit_in_bytes="4096", memory__usage_in_bytes="96")
    group = ControlGroup(tmp_path, "4:memory:/docker/0123\n")
    assert group.memory_limits() == (MemoryLimit(4096, 96),)


@pytest.mark.parametrize(
    ("folder", "file", "membership"),
    [
        (".", "cpuset__cpus__effective", "0::/"),
        ("job", "cpuset__cpus__effective", "0::/job/step"),
        ("cpuset/job", "cpuset__cpus", "3:cpuset:/job"),
        ("cpuset", "cpuset__effective_cpus", "3:cpuset:/job"),
    ],
)
def test_cores_come_from_the_nearest_group(
    tmp_path: Path, folder: str, file: str, membership: str
) -> None:
    write(tmp_path / folder, **{file: "0-1,6"})
    assert ControlGroup(tmp_path, membership).logical_cores() == (0, 1, 6)


def test_processor_quota(tmp_path: Path) -> None:
    assert ControlGroup(tmp_path, "0::/").processor_quota() is None
    write(tmp_path / "a", cpu__max="max 100000")
    assert ControlGroup(tmp_path, "0::/a").processor_quota() is None
    write(tmp_path, cpu__max="250000 100000")
    assert ControlGroup(tmp_path, "0::/a").processor_quota() == 2.5
    write(tmp_path / "cpu", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    assert ControlGroup(tmp_path, "1:cpu,cpuacct:/").processor_quota() == 1.5
    write(tmp_path / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert ControlGroup(tmp_path, "1:cpu,cpuacct:/").processor_quota() == 2.5


def test_a_system_without_cgroups_grants_everything(tmp_path: Path) -> None:
    group = ControlGroup(tmp_path / "absent", "")
    assert group.memory_limits() == ()
    assert group.logical_cores() == ()
    assert group.processor_quota() is None


@pytest.mark.parametrize(
    ("text", "cores"), [("", ()), ("3", (3,)), ("0-2,5\n", (0, 1, 2, 5)), ("0,8", (0, 8))]
)
def test_core_lists(text: str, cores: tuple[int, ...]) -> None:
    assert parse_core_list(text) == cores
