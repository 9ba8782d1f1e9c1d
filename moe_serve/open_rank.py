"""Opens a rank's device, held to what the config lets the rank have of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from moe_comm.membership import device_index
from moe_devices.device import Device
from moe_devices.discover import open_device
from moe_devices.emulated import EmulatedDevice
from moe_devices.process_share import process_share
from moe_devices.threads import bind_threads, cores_per_rank

from moe_serve.bring_up import Meeting
from moe_serve.config.tree import Config, PoolConfig
from moe_serve.control.meeting.host import memory_share
from moe_serve.control.meeting.together import together
from moe_serve.control.meeting.world import LaunchedWorld
from moe_serve.control.planning.hardware import pool_hardware
from moe_serve.errors import PlacementError
from moe_serve.survive.welcome import Welcome

logger = logging.getLogger(__name__)

# Mapped by threads that start later on, and by what ranks talk through; little of it is touched.
_SLACK_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class OpenRank:
    """A rank before it has a model.

    Attributes:
        memories: bytes by plan rank that its models may have together.
        held_to: bytes that this process may hold of the device at most; 0 where nothing holds it.
    """

    meeting: Meeting
    device: Device
    memories: tuple[int, ...]
    held_to: int = 0

    @property
    def rank(self) -> int:
        return self.meeting.launch.rank

    def allow_mapping(self, num_bytes: int) -> None:
        """Before so much is mapped of the host's memory that will not all be touched, as caches
        are that may grow by what others lend.

        Raises:
            DeviceError: this process holds more than it may already.
        """
        if self.held_to:
            self.device.cap_memory(self.held_to, _SLACK_BYTES + num_bytes)


def open_rank(config: Config, meeting: Meeting, welcome: Welcome | None = None) -> OpenRank:
    """Open this rank's device; every rank calls it.

    Args:
        welcome: where these ranks come back to others that serve.

    Raises:
        BringUpError: what keeps any rank from it; the same on every rank.
    """
    launch, exchange = meeting.launch, meeting.exchange
    pool = config.pool_of(launch.rank)
    device = together(exchange, lambda: _open(config, pool, launch))
    share = memory_share(device.memory().total, pool.device, launch.local_size)
    memory = pool.memory or share
    memories: Sequence[int]
    if welcome is None:
        memories = [int(each) for each in exchange.allgather_bytes(b"%d" % memory)]
    else:
        memories = welcome.memories
    together(exchange, partial(_require_memory, launch.rank, memory, memories[launch.rank]))
    held_to = together(exchange, lambda: _limit_memory(device, memory) if pool.limit_memory else 0)
    return OpenRank(meeting, device, tuple(memories), held_to)


def _require_memory(rank: int, memory: int, planned: int) -> None:
    if memory < planned:
        raise PlacementError(
            f"plan rank {rank} may use {memory} bytes of its device, and had {planned} before it "
            "was lost; free as much, or start all mpiruns again"
        )


def _limit_memory(device: Device, memory: int) -> int:
    """Hold this process to what it may have on top of what it has before any model -> bytes."""
    held_to = device.held_memory + memory
    logger.info("pools[..].limit_memory: %s", device.cap_memory(held_to, _SLACK_BYTES))
    return held_to


def _open(config: Config, pool: PoolConfig, launch: LaunchedWorld) -> Device:
    if pool.device == "emulated":
        hardware = pool_hardware(config)[pool.name]
        memory = pool.memory or hardware.memory_bytes
        device: Device = EmulatedDevice(hardware.name, memory, config.emulation.time_scale)
    else:
        assert launch.joined is not None
        index = device_index(launch.joined.membership, launch.rank)
        device = open_device(pool.device, index)
    # Some matrix products split their sums by thread; one thread gives one order of adding.
    threads = 1 if config.deterministic else pool.threads
    bind_threads(launch.local_rank, launch.local_size, threads, pool.compute_percent)
    if pool.compute_percent < 100:
        held = process_share(pool.compute_percent, cores_per_rank(launch.local_size))
        logger.info("pools %s: %s", pool.name, held)
    return device
