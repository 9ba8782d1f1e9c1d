"""How cores are shared, as arithmetic; and that binding a process really widens its mask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moe_devices.cgroup import ControlGroup
from moe_devices.threads import Core, num_threads, physical_cores, share_of_cores

WHOLE_PROCESS = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import torch
from moe_devices.threads import bind_threads, cores_per_rank
threads = bind_threads(0, 1, 0)
torch.randn(512, 512) @ torch.randn(512, 512)
masks = {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
print(threads, torch.get_num_threads(), *[len(mask) for mask in masks])
print(bind_threads(0, 1, 3), torch.get_num_threads())
print(bind_threads(0, 1, 3, 10), bind_threads(0, 1, 0, 1), cores_per_rank(1), cores_per_rank(4))
"""


def cores(count: int) -> tuple[Core, ...]:
    return tuple((number,) for number in range(count))


@pytest.mark.parametrize(
    ("num_cores", "num_ranks"), [(1, 1), (2, 1), (2, 2), (7, 2), (7, 3), (7, 7), (64, 3), (64, 7)]
)
def test_every_core_goes_to_one_rank_and_shares_differ_by_at_most_one(
    num_cores: int, num_ranks: int
) -> None:
    shares = [share_of_cores(cores(num_cores), rank, num_ranks) for rank in range(num_ranks)]
    assert tuple(core for share in shares for core in share) == cores(num_cores)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_more_ranks_than_cores_share_all_of_them_with_a_thread_each() -> None:
    assert share_of_cores(cores(2), 5, 6) == cores(2)
    assert num_threads(cores(2), None, 5, 6) == 1


def test_threads_keep_within_the_processor_time_granted() -> None:
    assert num_threads(cores(8), None, 0, 2) == 4
    assert num_threads(cores(8), 4.0, 0, 2) == 2
    assert num_threads(cores(8), 0.5, 0, 2) == 1
    assert num_threads(cores(8), 16.0, 0, 2) == 4


def test_siblings_count_as_one_core(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 3},{number % 3 + 3}\n")
    assert physical_cores(range(6), tmp_path) == ((0, 3), (1, 4), (2, 5))
    assert physical_cores((1, 2, 4), tmp_path) == ((1, 4), (2,))
    assert physical_cores((7, 9), tmp_path) == ((7,), (9,))


def test_a_process_bound_to_one_core_gets_its_host_back() -> None:
    allowed = len(ControlGroup.mine().logical_cores()) or os.cpu_count()
    command = [sys.executable, "-c", WHOLE_PROCESS]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    first, second, third = out.splitlines()
    threads, torch_threads, *masks = map(int, first.split())
    assert 1 <= threads == torch_threads
    assert masks == [allowed]
    assert second == "3 3"
    given, at_one_percent, one_rank, four_ranks = map(float, third.split())
    assert (given, at_one_percent) == (3, 1)
    assert 0 < one_rank <= allowed and four_ranks == one_rank / 4
