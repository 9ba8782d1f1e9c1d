"""A share of a host's processor time for one process among others that know nothing of it."""

from contextlib import suppress
from functools import partial

import psutil

from moe_devices.cgroup import ControlGroup
from moe_devices.errors import DeviceError
from moe_devices.own_group import enter_own_group
from moe_devices.quota import enter, limit_processor_time

_NAME = "moe-share"


def process_share(percent: int, num_cores: float, group: ControlGroup | None = None) -> str:
    """Hold this process and its children, present and future, to a share of some cores' time.

    Together they never get more, not even of time that nobody else wants. The bound ends with them.

    Args:
        percent: from 1; 100 holds nothing back.
        num_cores: whose time is shared out.
        group: this process's own, by default.

    Returns:
        How it is held.

    Raises:
        DeviceError: the system does not let this process bound its own time.
    """
    assert 1 <= percent <= 100, f"{percent} % is no share"
    share = f"{percent} % of {num_cores:g} cores' time"
    if percent == 100:
        return share
    cores = num_cores * percent / 100
    folder = (group or ControlGroup.mine()).processor_folder()
    try:
        own = enter_own_group(folder, _NAME, partial(limit_processor_time, cores=cores))
    except OSError as error:
        raise DeviceError(
            f"cannot hold this process to {share}: {folder} gives {error.strerror}; run as root "
            "where control groups may be written, or set compute_percent to 100 and start it by "
            f"systemd-run --scope -p CPUQuota={100 * cores:g}%"
        ) from error
    for child in psutil.Process().children(recursive=True):
        with suppress(ProcessLookupError):
            enter(own, child.pid)
    return f"{share}, held by a control group under {folder}"
