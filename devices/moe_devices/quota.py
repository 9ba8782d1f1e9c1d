"""Makes some processes slower than others: control groups with a bound on processor time."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from moe_devices.cgroup import ControlGroup
from moe_devices.errors import DeviceError

# Short, so that a process runs evenly slower instead of fast and then not at all.
_PERIOD_MICROSECONDS = 5000
# The kernel grants no shorter time in a period, and no longer period.
_LEAST_QUOTA_MICROSECONDS = 1000
_LONGEST_PERIOD_MICROSECONDS = 1_000_000
_END_SECONDS = 5.0


@contextmanager
def processor_quota(name: str, cores: float, group: ControlGroup | None = None) -> Iterator[Path]:
    """A control group below this process's own, for as long as the context lasts.

    Processes that enter it get so many cores' worth of time together; those that are still there
    at the end go back to where this process is.

    Args:
        name: of the new group.
        cores: at least 0.001.
        group: this process's own, by default.

    Returns:
        The group's folder, for `enter`.

    Raises:
        DeviceError: the system does not let this process make such a group.
    """
    parent = (group or ControlGroup.mine()).processor_folder()
    folder = parent / f"{name}-{os.getpid()}"
    try:
        make_group(folder, partial(limit_processor_time, cores=cores))
    except OSError as error:
        raise DeviceError(
            f"cannot bound processor time under {parent}: {error.strerror}; run as root where "
            "control groups may be written, or give slow ranks a core to share"
        ) from error
    try:
        yield folder
    finally:
        _remove(folder)


def enter(folder: Path, process: int | None = None) -> None:
    """Put a process, this one by default, with all its threads, into a control group."""
    (folder / "cgroup.procs").write_text(str(process or os.getpid()))


def make_group(folder: Path, limit: Callable[[Path], None]) -> None:
    """Make a control group, and have `limit` write its bounds.

    Raises:
        OSError: the system does not let this process; nothing is left of the group.
    """
    folder.mkdir()
    try:
        limit(folder)
    except OSError:
        folder.rmdir()
        raise


def limit_processor_time(folder: Path, cores: float) -> None:
    """Bound a control group to so many cores' worth of time; OSError where the system refuses."""
    period = min(
        max(_PERIOD_MICROSECONDS, math.ceil(_LEAST_QUOTA_MICROSECONDS / cores)),
        _LONGEST_PERIOD_MICROSECONDS,
    )
    quota = round(cores * period)
    if (folder / "cpu.cfs_quota_us").exists():
        (folder / "cpu.cfs_period_us").write_text(str(period))
        (folder / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        # Not created where the system gives the group no such bound.
        with (folder / "cpu.max").open("r+") as file:
            file.write(f"{quota} {period}")


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
