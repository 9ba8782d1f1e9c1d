"""What ranks that come back must know of a server that runs to be what they were in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from moe_placement.plan import Plan

from moe_serve.control.meeting.world import LaunchedWorld


@dataclass(frozen=True, slots=True)
class Welcome:
    """Attributes:
    memories: bytes that each plan rank had when it was brought up.
    secret: of the lines between front end and ranks, and between the ends of handovers.
    plan: that all ranks run once they are there again.
    kv_ends: each rank's end of handovers as it announces itself; of those that have one.
    """

    memories: tuple[int, ...]
    secret: bytes
    plan: Plan
    kv_ends: Mapping[int, bytes]


def encode_welcome(welcome: Welcome) -> bytes:
    return msgspec.msgpack.encode(welcome)


def read_welcome(launch: LaunchedWorld) -> Welcome | None:
    """None for a rank that does not come back."""
    if launch.joined is None or launch.joined.comeback is None:
        return None
    return msgspec.msgpack.decode(launch.joined.comeback.welcome, type=Welcome)
