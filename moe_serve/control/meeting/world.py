"""Which rank the launcher says this process is, and whether the pools ask for that many."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moe_comm.launch import Launch, read_launch
from moe_comm.transport.joined import Joined
from moe_comm.transport.roll_call import LauncherError, RollCall

from moe_serve.config.tree import Config
from moe_serve.errors import BringUpError, ConfigError

_LAUNCHER_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_SET_PARENT_DEATH_SIGNAL = 1


@dataclass(frozen=True, slots=True)
class LaunchedWorld(Launch):
    """This process among all ranks of its world; alone it is rank 0 of 1.

    Until the ranks have joined, its mpirun is all that it knows of.

    Attributes:
        rank, size: its plan rank, and the ranks of all mpiruns together.
        local_rank, local_size: the same among the ranks of this host, of all mpiruns.
        is_launched: an mpirun started it, be it as its only rank.
        mpirun: this process among those of its own mpirun, where that is not all of the world.
        joined: what the ranks have of each other, once they have joined.
        address: of this host, where ranks of other mpiruns reach it; empty in one mpirun.
    """

    is_launched: bool = False
    mpirun: Launch | None = None
    joined: Joined | None = None
    address: str = ""

    @property
    def in_mpirun(self) -> Launch:
        return self.mpirun or Launch(self.rank, self.size, self.local_rank, self.local_size)

    @property
    def launch_rank(self) -> int:
        """The number that this process has in its own mpirun."""
        return self.in_mpirun.rank


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
        return RollCall(world.in_mpirun)
    except LauncherError as error:
        raise BringUpError(str(error)) from error


def in_pools(config: Config, world: LaunchedWorld, names: Sequence[str]) -> LaunchedWorld:
    """This process with its plan rank, where its mpirun is the ranks of some pools.

    Args:
        names: of those pools; none means all.

    Raises:
        ConfigError: there is no such pool, or its ranks are not as many as were started.
    """
    served = served_pools(config, names)
    check_world_size(config, world, names)
    owners = [config.pool_of(rank).name for rank in range(config.num_ranks)]
    plan_ranks = [rank for rank, owner in enumerate(owners) if owner in served]
    own = world.in_mpirun
    return replace(world, rank=plan_ranks[own.rank], size=config.num_ranks, mpirun=own)


def served_pools(config: Config, names: Sequence[str]) -> tuple[str, ...]:
    """The pools of an mpirun that was given these names, in the order of the config.

    Raises:
        ConfigError: there is no such pool.
    """
    pools = tuple(pool.name for pool in config.pools)
    for name in names:
        if name not in pools:
            raise ConfigError(f'--pools: there is no pool "{name}"; use {", ".join(pools)}')
    return tuple(pool for pool in pools if pool in names or not names)


def check_world_size(config: Config, world: LaunchedWorld, names: Sequence[str] = ()) -> None:
    """Refuse a launch that the named pools do not add up to; without names, all pools.

    Raises:
        ConfigError: both numbers, and the command that fits.
    """
    served = [pool for pool in config.pools if pool.name in names or not names]
    num_ranks = sum(pool.ranks for pool in served)
    if world.in_mpirun.size == num_ranks:
        return
    pools = ", ".join(f"{pool.name}: {pool.ranks}" for pool in served)
    started = f"mpirun started {world.in_mpirun.size}" if world.is_launched else "1 was started"
    key = "pools[0].ranks" if len(config.pools) == 1 else "pools[..].ranks"
    name_them = ", name this mpirun's with --pools," if config.world.address and not names else ""
    raise ConfigError(
        f"pools need {num_ranks} {'rank' if num_ranks == 1 else 'ranks'} ({pools}), "
        f"{started}; run mpirun -n {num_ranks}{name_them} or change {key}"
    )


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send this process `number` when its parent dies, however it dies.

    Linux alone has this; elsewhere it does nothing. exec keeps it, fork does not.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(number))
