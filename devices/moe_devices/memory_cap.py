"""Holds this process to a cap on memory, so that who asks for too much gets an error.

Two things of the system count a process's memory. A limit on its data (RLIMIT_DATA) refuses who
asks: torch and Python then raise, and go on. A control group counts what is touched, and its only
answer is to kill. So the first is what holds. It counts a cache that is mapped larger than what
will ever be touched in full: where room is left for that, a control group stands behind it, which
ends this process rather than let it take its neighbours' memory.
"""

import resource
from functools import partial
from pathlib import Path

from moe_devices.cgroup import ControlGroup
from moe_devices.errors import DeviceError
from moe_devices.own_group import enter_own_group

_NAME = "moe-memory"
_STATUS = Path("/proc/self/status")
# What the kernel itself takes for a process counts in its control group: page tables, sockets.
_KERNEL_BYTES = 32 << 20
_KERNEL_SHARE = 0.02


def cap_process_memory(
    num_bytes: int, virtual_slack: int, group: ControlGroup | None = None
) -> str:
    """Bound the private memory of this process; may be called again, to raise or to lower it, or
    before more is mapped than will be touched.

    Memory that is mapped already may be touched in full: some 80 MiB after torch is imported, and
    8 MiB for the stack of each thread. A thread that starts later needs as much.

    Args:
        num_bytes: in all, with what is in use now.
        virtual_slack: bytes that may be mapped from now on above that and never be touched.
        group: this process's own, by default.

    Returns:
        How it is held.

    Raises:
        DeviceError: it is below what is in use, or the system cannot hold a process to it.
    """
    used = private_bytes()
    if not used:
        raise DeviceError("this system does not tell what a process uses; leave memory uncapped")
    require_room(num_bytes, used)
    limit = _status("VmData") + num_bytes - used + virtual_slack
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_least(limit, most), most))
    held = f"{_mib(num_bytes)} of private memory at most: an error for who asks for more"
    folder = (group or ControlGroup.mine()).memory_folder()
    if not virtual_slack and not folder.name.startswith(_NAME):
        return held
    behind = _stand_behind(num_bytes - used, folder)
    return f"{held} and {_mib(virtual_slack)} that stay untouched; {behind}"


def private_bytes() -> int:
    """What this process has touched of memory that it shares with nobody; 0 where the system does
    not tell."""
    return _status("RssAnon") + _status("VmSwap")


def require_room(num_bytes: int, used: int) -> None:
    """Raise the DeviceError of a cap below what is in use."""
    if num_bytes < used:
        raise DeviceError(
            f"a cap of {_mib(num_bytes)} is below the {_mib(used)} in use already; raise it, or "
            "free as much first"
        )


def share_of_memory(num_bytes: int, total: int, used: int) -> float:
    """A cap as a share of all memory of a device.

    Raises:
        DeviceError: it is below what is in use, or above what there is.
    """
    require_room(num_bytes, used)
    if num_bytes > total:
        raise DeviceError(f"a cap of {_mib(num_bytes)} is above the {_mib(total)} there are")
    return num_bytes / total


def _stand_behind(num_bytes: int, folder: Path) -> str:
    """Kill this process where it touches so many bytes more, if the system lets us."""
    limit = int(num_bytes * (1 + _KERNEL_SHARE)) + _KERNEL_BYTES
    try:
        enter_own_group(folder, _NAME, partial(_limit_touched, num_bytes=limit))
    except OSError as error:
        return f"nothing keeps it from touching those ({folder}: {error.strerror})"
    return f"the system kills it where it touches {_mib(limit)} more than now"


def _limit_touched(folder: Path, num_bytes: int) -> None:
    """Pages touched before the process entered stay counted where it was; files that it has read
    count too, but those the system takes back before it kills."""
    version_1 = (folder / "memory.limit_in_bytes").exists()
    limit, private = ("memory.limit_in_bytes", "rss") if version_1 else ("memory.max", "anon")
    counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    # Not created where the system gives the group no such bound.
    with (folder / limit).open("r+") as file:
        file.write(str(int(counts[private]) + num_bytes))


def _status(field: str) -> int:
    """Bytes by a field of the process's status."""
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    kilobytes = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(next(kilobytes, "0")) * 1024


def _least(limit: int, most: int) -> int:
    return limit if most == resource.RLIM_INFINITY else min(limit, most)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
