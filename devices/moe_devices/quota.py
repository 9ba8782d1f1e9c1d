"""Makes some processes slower than others: control groups with a bound on processor time."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moe_devices.cgroup import ControlGroup
from moe_devices.errors import DeviceError

# Short, so that a process runs evenly slower instead of fast and then not at all.
_PERIOD_MICROSECONDS = 5000
_END_SECONDS = 5.0


@contextmanager
def processor_quota(name: str, cores: float, group: ControlGroup | None = None) -> Iterator[Path]:
    """A control group below this process's own, for as long as the context lasts.

    Processes that enter it get so many cores' worth of time together; those that are still there
    at the end go back to where this process is.

    Args:
        name: of the new group.
        cores: at least 0.2 on version 1 of control groups, which grants no shorter times.
        group: this process's own, by default.

    Returns:
        The group's folder, for `enter`.

    Raises:
        DeviceError: the system does not let this process make such a group.
    """
    parent = (group or ControlGroup.mine()).processor_folder()
    folder = _make(parent / f"{name}-{os.getpid()}", round(cores * _PERIOD_MICROSECONDS))
    try:
        yield folder
    finally:
        _remove(folder)


def enter(folder: Path) -> None:
    """Put this process, with all its threads, under a quota."""
    (folder / "cgroup.procs").write_text(str(os.getpid()))


def _make(folder: Path, quota: int) -> Path:
    try:
        folder.mkdir()
        try:
            _limit(folder, quota)
        except OSError:
            folder.rmdir()
            raise
    except OSError as error:
        raise DeviceError(
            f"cannot bound processor time under {folder.parent}: {error.strerror}; run as root "
            "where control groups may be written, or give slow ranks a core to share"
        ) from error
    return folder


def _limit(folder: Path, quota: int) -> None:
    if (folder / "cpu.cfs_quota_us").exists():
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
        (folder / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        # Not created where the system gives the group no such bound.
        with (folder / "cpu.max").open("r+") as file:
            file.write(f"{quota} {_PERIOD_MICROSECONDS}")


def _remove(folder: Path) -> None:
    """A process that has just ended keeps its group busy for a moment."""
    for process in (folder / "cgroup.procs").read_text().split():
        try:
            (folder.parent / "cgroup.procs").write_text(process)
        except ProcessLookupError:
            continue
    last = time.monotonic() + _END_SECONDS
    while True:
        try:
            folder.rmdir()
            return
        except OSError:
            if time.monotonic() > last:
                raise
            time.sleep(0.01)
