"""What ranks that come back must know of a server that runs to plan as it was planned."""

from dataclasses import dataclass

import msgspec

from moe_serve.control.deployment import Deployment
from moe_serve.control.world import LaunchedWorld


@dataclass(frozen=True, slots=True)
class Welcome:
    """Attributes:
    memories: bytes that each plan rank had when it was brought up.
    secret: of the lines between front end and ranks.
    """

    memories: tuple[int, ...]
    secret: bytes


def welcome_of(deployment: Deployment, secret: bytes) -> bytes:
    """As plan rank 0 has those told that come back."""
    memories = tuple(memory.device_bytes for memory in deployment.memories)
    return msgspec.msgpack.encode(Welcome(memories, secret))


def read_welcome(launch: LaunchedWorld) -> Welcome | None:
    """None for a rank that does not come back."""
    if launch.joined is None or launch.joined.comeback is None:
        return None
    return msgspec.msgpack.decode(launch.joined.comeback.welcome, type=Welcome)
