"""Shares the host's cores among its ranks.

A launcher may have bound each rank to one core already, so the inherited mask says nothing; the
cores come from the control group, and the mask is set anew.
"""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from moe_devices.cgroup import ControlGroup, parse_core_list

Core = tuple[int, ...]
"""The logical processors of one physical core."""

_log = logging.getLogger(__name__)


def bind_threads(local_rank: int, num_local_ranks: int, threads: int, percent: int = 100) -> int:
    """Bind this process to its share of the host's cores, and torch to as many threads.

    Args:
        local_rank: among the ranks on this host.
        threads: 0 takes one for each core of the share.
        percent: of the share's time that this process is to have, which takes fewer threads.

    Returns:
        the number of threads that torch now uses.
    """
    group = ControlGroup.mine()
    logical = group.logical_cores() or tuple(range(os.cpu_count() or 1))
    cores = physical_cores(logical, Path("/sys/devices/system/cpu"))
    share = share_of_cores(cores, local_rank, num_local_ranks)
    count = num_threads(cores, group.processor_quota(), local_rank, num_local_ranks)
    count = threads or math.ceil(count * percent / 100)
    _set_affinity(share)
    torch.set_num_threads(count)
    return count


def share_of_cores(cores: Sequence[Core], local_rank: int, num_local_ranks: int) -> Sequence[Core]:
    """Neighbouring cores for this rank alone; with more ranks than cores, all of them for all,
    so that the system may run whichever rank has work wherever there is room."""
    if num_local_ranks > len(cores):
        return cores
    first, last = (len(cores) * rank // num_local_ranks for rank in (local_rank, local_rank + 1))
    return cores[first:last]


def num_threads(
    cores: Sequence[Core], quota: float | None, local_rank: int, num_local_ranks: int
) -> int:
    """One for each core of this rank's share, within its part of the processor time granted."""
    if num_local_ranks > len(cores):
        return 1
    count = len(share_of_cores(cores, local_rank, num_local_ranks))
    granted = count if quota is None else int(quota / num_local_ranks)
    return max(1, min(count, granted))


def cores_per_rank(num_local_ranks: int) -> float:
    """Cores' worth of time, in logical processors, that each rank has where they share the host's
    evenly."""
    group = ControlGroup.mine()
    num_cores = len(group.logical_cores()) or os.cpu_count() or 1
    return min(num_cores, group.processor_quota() or num_cores) / num_local_ranks


def physical_cores(logical: Sequence[int], topology: Path) -> tuple[Core, ...]:
    """Groups logical processors that share a physical core, in order of the first of each."""
    siblings: dict[Core, list[int]] = {}
    for number in sorted(logical):
        file = topology / f"cpu{number}" / "topology" / "thread_siblings_list"
        together = parse_core_list(file.read_text()) if file.exists() else (number,)
        siblings.setdefault(together, []).append(number)
    return tuple(tuple(members) for members in siblings.values())


def _set_affinity(share: Sequence[Core]) -> None:
    """Bind every thread of this process; those of torch's pool would keep the old mask."""
    if not hasattr(os, "sched_setaffinity"):
        return
    logical = {number for core in share for number in core}
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), logical)
        except ProcessLookupError:  # The thread has ended.
            continue
        except OSError as error:
            _log.warning("cannot bind a thread to cores %s: %s", sorted(logical), error)
            return
