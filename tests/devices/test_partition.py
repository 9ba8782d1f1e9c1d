"""Parts of a device: whole units for percentages, and work that stays on the cores of its part."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from moe_devices.cpu import CpuDevice
from moe_devices.cpu_partition import CorePartition, partition_cores
from moe_devices.emulated import EmulatedDevice
from moe_devices.errors import DeviceError
from moe_devices.openmp import bind_team
from moe_devices.partition import Partition, units_by_percent

Answer = TypeVar("Answer")
ALLOWED = sorted(os.sched_getaffinity(0))
needs_two_cores = pytest.mark.skipif(len(ALLOWED) < 2, reason="there is one core")


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Threads that start later take the number that was set last anywhere."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@given(st.integers(2, 300), st.data())
def test_parts_are_whole_units_less_than_one_off(num_units: int, data: st.DataObject) -> None:
    least = -(-100 // num_units)
    most = min(99, 100 * (num_units - 1) // num_units)
    percents: list[int] = []
    while sum(percents) <= most - least and len(percents) < 8:
        percents.append(data.draw(st.integers(least, most - sum(percents))))
    *units, rest = units_by_percent(percents, num_units, "slots")
    for percent, count in zip(percents, units, strict=True):
        assert count >= 1 and abs(count - percent * num_units / 100) < 1
    assert rest == num_units - sum(units) >= 1
    assert rest == 1 or abs(rest - (100 - sum(percents)) * num_units / 100) < 1


def test_refusals_say_what_was_asked_and_what_there_is() -> None:
    with pytest.raises(DeviceError, match=r"60 \+ 41 = 101 % are more than the 16 slots"):
        units_by_percent([60, 41], 16, "slots")
    with pytest.raises(DeviceError, match=r"6 % of 16 slots is 0\.96, .* ask for 7 % or more"):
        units_by_percent([94, 6], 16, "slots")
    assert units_by_percent([86, 7], 16, "slots") == [14, 1, 1]
    with pytest.raises(DeviceError, match="emulated a card cannot be divided"):
        EmulatedDevice("a card", 1 << 20).partition([100])


def test_what_is_left_is_a_part_that_nobody_asks_for() -> None:
    assert units_by_percent([30, 65], 8, "cores") == [2, 5, 1]
    message = (
        "parts of 50 + 50 % take all 2 cores, and the other models and the serving loop need one; "
        "ask for 50 % or less together, or share the device in time (isolate: time)"
    )
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
        units_by_percent([50, 50], 2, "cores")
    with pytest.raises(DeviceError, match=r"parts of 100 % take all 8 .* ask for 87 % or less"):
        units_by_percent([100], 8, "cores")
    with pytest.raises(DeviceError, match=r"parts of 100 % take all 1 cores.*isolate: time"):
        units_by_percent([100], 1, "cores")


def multiply(seconds: float = 0.1) -> None:
    """Takes as many threads as torch has here."""
    matrix = torch.ones(400, 400)
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        matrix @ matrix


def in_thread(task: Callable[[], Answer]) -> Answer:
    """Run it in a thread that is new to torch."""
    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(task).result(60)


def tasks() -> set[int]:
    return {int(folder.name) for folder in Path("/proc/self/task").iterdir()}


def masks(tasks: Iterable[int]) -> set[frozenset[int]]:
    return {frozenset(os.sched_getaffinity(task)) for task in tasks}


def processor_of(task: int) -> int:
    """Where a thread has run last."""
    return int(Path(f"/proc/self/task/{task}/stat").read_text().rpartition(")")[2].split()[36])


def seconds_of(task: int) -> float:
    nanoseconds = Path(f"/proc/self/task/{task}/schedstat").read_text().split()[0]
    return int(nanoseconds) / 1e9


@needs_two_cores
def test_two_parts_compute_beside_each_other_each_on_its_own_cores() -> None:
    parts = partition_cores([50])
    cores = [{number for core in part.cores for number in core} for part in parts]
    together = threading.Barrier(len(parts))

    def compute(part: Partition) -> set[int]:
        seen = set()
        with part.use():
            together.wait(60)
            for _ in range(20):
                multiply(0.01)
                seen.add(processor_of(threading.get_native_id()))
            assert torch.get_num_threads() <= len(ALLOWED) // 2
        return seen

    with ThreadPoolExecutor(len(parts)) as fresh:
        seen = list(fresh.map(compute, parts, timeout=60))
    assert cores[0].isdisjoint(cores[1])
    assert seen[0] <= cores[0] and seen[1] <= cores[1]


@needs_two_cores
def test_a_team_that_is_there_already_moves_and_goes_back() -> None:
    """Its threads have the mask of who started them, and keep it when that one's changes."""
    core = ALLOWED[-1]
    partition = CorePartition(cores=((core,),), num_threads=2)

    def compute() -> None:
        before = tasks()
        torch.set_num_threads(2)
        multiply()
        team = {threading.get_native_id(), *(tasks() - before)}
        assert len(team) == 2
        assert masks(team) == {frozenset(ALLOWED)}
        with partition.use():
            used = {task: seconds_of(task) for task in team}
            multiply()
            assert masks(team) == {frozenset({core})}
            assert {processor_of(task) for task in team} == {core}
            assert all(seconds_of(task) > used[task] for task in team)
        assert masks(team) == {frozenset(ALLOWED)}
        assert torch.get_num_threads() == 2

    in_thread(compute)


@needs_two_cores
def test_a_team_that_starts_within_a_part_is_bound_to_it() -> None:
    core = ALLOWED[0]
    partition = CorePartition(cores=((core,),), num_threads=2)

    def compute() -> set[frozenset[int]]:
        before = tasks()
        with partition.use():
            multiply()
            team = {threading.get_native_id(), *(tasks() - before)}
            assert len(team) == 2
            return masks(team)

    assert in_thread(compute) == {frozenset({core})}
    assert sorted(os.sched_getaffinity(0)) == ALLOWED


@needs_two_cores
def test_parts_divide_torchs_threads_and_never_add_any() -> None:
    torch.set_num_threads(1)
    parts = CpuDevice().partition([50])
    cores = [core for part in parts if isinstance(part, CorePartition) for core in part.cores]
    assert {number for core in cores for number in core} == set(ALLOWED)
    assert [part.num_threads for part in parts if isinstance(part, CorePartition)] == [1, 1]


def test_cores_that_are_not_there_are_refused() -> None:
    with pytest.raises(DeviceError, match=r"cannot bind threads to cores \[1000\]"):
        bind_team({1000}, 1)
