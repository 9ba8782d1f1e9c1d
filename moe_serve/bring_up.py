"""Ranks that were started become a world: they meet, and find out whether they can form one."""

import hashlib
import os
import socket
from importlib.metadata import version

import torch
from moe_comm.membership import Member, disagreement, encode_member, membership
from moe_comm.transport.exchange import Exchange
from moe_comm.transport.torch_dist import open_torch_exchange
from moe_comm.transport.world import World, open_world

from moe_serve.config.tree import Config
from moe_serve.control.addresses import host_address
from moe_serve.control.host import host_identity
from moe_serve.control.world import LaunchedWorld
from moe_serve.errors import AgreedError

# Loading a large checkpoint from a slow disk takes this long at most.
_BRING_UP_SECONDS = 3600.0
# Longer than any step: who has not come to an exchange by then hangs.
_STEP_SECONDS = 300.0


class Meeting:
    """What the ranks have of each other after they met.

    Attributes:
        exchange: for bring-up alone; waits long.
    """

    def __init__(self, launch: LaunchedWorld, world: World, exchange: Exchange) -> None:
        self.launch = launch
        self.exchange = exchange
        self._world = world
        self._data: dict[str, Exchange] = {}
        self._others: list[Exchange] = []

    def open_data_exchange(self, collective: str, device: torch.device) -> Exchange:
        """The exchange that steps run over; called by all ranks.

        Engines that follow one another in these processes share it, until `close`.

        Args:
            collective: mpi, or the backend of a torch.distributed group.
        """
        if collective not in self._data:
            self._data[collective] = self._open_data_exchange(collective, device)
        return self._data[collective]

    def _open_data_exchange(self, collective: str, device: torch.device) -> Exchange:
        if collective == "mpi" or self.exchange.size == 1:
            return self._world.open_exchange(self.launch.rank, _STEP_SECONDS, _never)
        exchange = open_torch_exchange(
            self.exchange, host_address(self.launch), collective, device, _STEP_SECONDS, _never
        )
        self._others.append(exchange)
        return exchange

    def close(self) -> None:
        """Leave the world; all ranks do so together."""
        for exchange in self._others:
            exchange.close()
        self._world.close()


def _never() -> bool:
    return False


def meet(config: Config, launch: LaunchedWorld) -> Meeting:
    """Open the world and find out whether these ranks can form it.

    Raises:
        AgreedError: they run different versions, read different configs, or sit wrongly.
    """
    world = open_world(launch)
    exchange = world.open_exchange(launch.rank, _BRING_UP_SECONDS, _never)
    pool = config.pool_of(launch.rank)
    member = Member(
        plan_rank=launch.rank,
        pool=pool.name,
        device_kind=pool.device,
        host=socket.gethostname(),
        host_identity=host_identity(),
        process_id=os.getpid(),
        local_rank=launch.local_rank,
        version=version("moe-serve"),
        digest=config_digest(config),
    )
    fault = disagreement(membership(0, exchange.allgather_bytes(encode_member(member))))
    if fault is not None:
        raise AgreedError(fault)
    return Meeting(launch, world, exchange)


def config_digest(config: Config) -> str:
    """Equal for configs that say the same, wherever their files lie."""
    return hashlib.sha256(repr(config).encode()).hexdigest()[:12]
