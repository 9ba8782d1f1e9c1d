"""Which host this is, and what it has for its ranks: memory and cores, as containers leave them.

Without torch, so that a laptop can check a config.
"""

import os
import subprocess
from pathlib import Path

from moe_devices.cgroup import ControlGroup

_TOPOLOGY = Path("/sys/devices/system/cpu")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


def host_identity() -> str:
    """Differs between hosts, though cloned machines and containers may have one name.

    A container with a network of its own counts as a host: it has its own devices too.
    """
    try:
        return f"{_BOOT.read_text().strip()} {_NETWORK.readlink()}"
    except OSError:
        return ""


def host_memory() -> int:
    """Bytes of memory, or the limit of the control groups around this process if lower."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *(limit.total for limit in ControlGroup.mine().memory_limits())])


def memory_share(total: int, device_kind: str, num_local_ranks: int) -> int:
    """What one rank may use of its device: ranks share a host's memory, not an accelerator's."""
    return total // num_local_ranks if device_kind == "cpu" else total


def threads_per_rank(num_local_ranks: int) -> int:
    """CPU threads of each of this host's ranks when they share its physical cores evenly."""
    quota = ControlGroup.mine().processor_quota()
    granted = _num_cores() if quota is None else min(_num_cores(), quota)
    return max(1, int(granted / num_local_ranks))


def cores_per_rank(num_local_ranks: int) -> int:
    """Physical cores that each of this host's ranks has at least: all of them where there are more
    ranks than cores."""
    return _num_cores() // num_local_ranks or _num_cores()


def gpu_memory() -> int | None:
    """Bytes of this host's smallest NVIDIA GPU, or None where the driver shows none."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return min(int(line) for line in found.stdout.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _num_cores() -> int:
    logical = ControlGroup.mine().logical_cores() or range(os.cpu_count() or 1)
    return len({_siblings(number) for number in logical})


def _siblings(number: int) -> str:
    """The same text for logical processors that share a physical core."""
    try:
        return (_TOPOLOGY / f"cpu{number}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(number)
