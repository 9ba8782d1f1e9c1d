"""A control group that a process makes for itself, and that ends with it.

Whoever is killed leaves an empty folder behind: the next process that makes one of the same name
takes it away.
"""

import atexit
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from moe_devices.quota import enter, make_group


def enter_own_group(parent: Path, name: str, limit: Callable[[Path], None]) -> Path:
    """Put this process, and those that it starts from here on, into a group of their own.

    Where it is in such a group already, that one's limit is set anew.

    Args:
        parent: the folder of the group that it is in.
        limit: writes the group's bounds.

    Returns:
        The group's folder.

    Raises:
        OSError: the system does not let this process; nothing has changed.
    """
    own = f"{name}-{os.getpid()}"
    if parent.name == own:
        limit(parent)
        return parent
    _remove_left_behind(parent, name)
    folder = parent / own
    make_group(folder, limit)
    try:
        enter(folder)
    except OSError:
        folder.rmdir()
        raise
    atexit.register(_leave, folder, os.getpid())
    return folder


def _remove_left_behind(parent: Path, name: str) -> None:
    """Take away groups whose process has ended, this one's namesake among them."""
    for folder in parent.glob(f"{name}-*"):
        process = folder.name.rpartition("-")[2]
        has_ended = process == str(os.getpid()) or not Path("/proc", process).exists()
        if process.isdigit() and has_ended:
            # Its children may still be in it, or somebody else has taken it away meanwhile.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _leave(folder: Path, process: int) -> None:
    """Children that still run keep the group with its bounds."""
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            enter(folder.parent)
            folder.rmdir()
