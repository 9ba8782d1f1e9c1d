"""What this machine lets tests bound by control groups."""

from moe_devices.cgroup import ControlGroup
from moe_devices.errors import DeviceError
from moe_devices.quota import processor_quota


def may_limit_time() -> bool:
    try:
        with processor_quota("moe-try", 1.0):
            return True
    except DeviceError:
        return False


def may_limit_memory() -> bool:
    trial = ControlGroup.mine().memory_folder() / "moe-try"
    try:
        trial.mkdir()
    except OSError:
        return False
    bounds = [trial / "memory.limit_in_bytes", trial / "memory.max"]
    found = any(bound.exists() for bound in bounds)
    trial.rmdir()
    return found
