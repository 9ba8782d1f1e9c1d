"""What the planner takes each pool's devices for: of the catalogue, or of a user's file."""

from collections.abc import Mapping

from moe_placement.hardware.catalogue import find_device
from moe_placement.hardware.device import DeviceSpec
from moe_placement.hardware.section import HardwareError

from moe_serve.config.tree import Config
from moe_serve.errors import ConfigError


def pool_hardware(config: Config) -> Mapping[str, DeviceSpec]:
    """The devices of the pools that name their hardware, by pool.

    Raises:
        ConfigError: a device that is not in the catalogue, or a file that is wrong.
    """
    return {
        pool.name: _find(f"pools[{index}].hardware", pool.hardware)
        for index, pool in enumerate(config.pools)
        if pool.hardware
    }


def declared_memory(config: Config) -> list[int]:
    """Bytes that a rank of each pool may use, as the config has it, be it by what the pool
    emulates; 0 where the device is to be asked.

    Raises:
        ConfigError: hardware as `pool_hardware` has it.
    """
    hardware = pool_hardware(config)
    return [
        pool.memory or (hardware[pool.name].memory_bytes if pool.device == "emulated" else 0)
        for pool in config.pools
    ]


def _find(where: str, name: str) -> DeviceSpec:
    try:
        return find_device(name)
    except HardwareError as error:
        raise ConfigError(f"{where}: {error}") from error
