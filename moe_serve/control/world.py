"""Which rank the launcher says this process is, and whether the pools ask for that many."""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass

from moe_comm.launch import Launch, read_launch
from moe_comm.transport.roll_call import LauncherError, RollCall

from moe_serve.config.tree import Config
from moe_serve.errors import BringUpError, ConfigError

_LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_SET_PARENT_DEATH_SIGNAL = 1


@dataclass(frozen=True, slots=True)
class LaunchedWorld(Launch):
    """This process among those of its mpirun; alone it is rank 0 of 1.

    Attributes:
        is_launched: an mpirun started it, be it as its only rank.
    """

    is_launched: bool = False


def launched_world() -> LaunchedWorld:
    """What the launcher wrote into the environment.

    Raises:
        BringUpError: the launcher's variables are no numbers.
    """
    is_launched = any(name in os.environ for name in _LAUNCHER_SIZES)
    try:
        found = read_launch(os.environ)
    except ValueError as error:
        raise BringUpError(
            f"mpirun's variables in the environment do not give a rank ({error}); "
            f"start moe_serve with mpirun, or unset {' and '.join(_LAUNCHER_SIZES)}"
        ) from error
    return LaunchedWorld(
        found.rank, found.size, found.local_rank, found.local_size, is_launched=is_launched
    )


def roll_call(world: LaunchedWorld) -> RollCall:
    """Where ranks hear of each other before torch is loaded; returns when all have come.

    Raises:
        BringUpError: this Python's MPI was not started by the mpirun that started the ranks.
    """
    try:
        return RollCall(world)
    except LauncherError as error:
        raise BringUpError(str(error)) from error


def check_world_size(config: Config, world: LaunchedWorld) -> None:
    """Refuse a launch that the config's pools do not add up to.

    Raises:
        ConfigError: both numbers, and the command that fits.
    """
    if world.size == config.num_ranks:
        return
    pools = ", ".join(f"{pool.name}: {pool.ranks}" for pool in config.pools)
    started = f"mpirun started {world.size}" if world.is_launched else "1 was started"
    key = "pools[0].ranks" if len(config.pools) == 1 else "pools[..].ranks"
    raise ConfigError(
        f"pools need {config.num_ranks} {'rank' if config.num_ranks == 1 else 'ranks'} ({pools}), "
        f"{started}; run mpirun -n {config.num_ranks} or change {key}"
    )


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process `number` when its parent dies, however it dies.

    Linux alone has this; elsewhere it does nothing. exec keeps it, fork does not.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(number))
