"""The catalogue of devices, and devices from a user's own file."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType

from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.device_file import read_devices
from moe_placement.hardware.section import HardwareError

_NUM_SUGGESTIONS = 3


def load_catalogue() -> Mapping[str, DeviceSpec]:
    """The shipped devices by name, without their aliases."""
    return _shipped()[0]


def find_device(name: str | Path) -> DeviceSpec:
    """A device by its name or alias in the catalogue, or by the path of a YAML file of one device.

    Raises:
        HardwareError: no such device, with the nearest names, or a file that is wrong.
    """
    if isinstance(name, Path) or name.endswith((".yaml", ".yml")):
        return _from_file(Path(name))
    catalogue, aliases = _shipped()
    key = name.lower().replace("-", "_")
    if key in aliases:
        return catalogue[aliases[key]]
    near = get_close_matches(key, list(aliases), n=_NUM_SUGGESTIONS, cutoff=0.5)
    fix = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(catalogue)}"
    raise HardwareError(
        f"device {name!r} is not in the catalogue; {fix}; or give the path of a YAML file, as "
        "`moe_plan calibrate` writes it"
    )


def _from_file(path: Path) -> DeviceSpec:
    devices = read_devices(path)
    if len(devices) != 1:
        raise HardwareError(f"{path} describes {', '.join(devices)}; keep one device in a file")
    return next(iter(devices.values()))[0]


@cache
def _shipped() -> tuple[Mapping[str, DeviceSpec], Mapping[str, str]]:
    """The devices by name, and every name and alias with the name it stands for."""
    with as_file(files("moe_placement") / "data" / "devices.yaml") as path:
        entries = read_devices(path)
    devices = {name: device for name, (device, _) in entries.items()}
    aliases = {alias: name for name, (_, others) in entries.items() for alias in (name, *others)}
    return MappingProxyType(devices), MappingProxyType(aliases)
