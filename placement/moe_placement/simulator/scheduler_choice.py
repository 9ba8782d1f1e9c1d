"""Finds a scheduler by name: the stand-in, or what an installed engine registers."""

from importlib.metadata import entry_points
from typing import cast

from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.scheduler import MakeScheduler
from moe_placement.simulator.stand_in import StandInScheduler

ENTRY_POINT_GROUP = "moe_placement.scheduler"
STAND_IN = "stand-in"


def find_scheduler(name: str) -> MakeScheduler:
    """What makes the scheduler of that name.

    Raises:
        SimulationError: nothing installed registers it; the message names those there are.
    """
    if name == STAND_IN:
        return StandInScheduler
    registered = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in registered:
        known = ", ".join([STAND_IN, *sorted(registered)])
        raise SimulationError(f"scheduler {name!r} is not installed; use one of {known}")
    return cast(MakeScheduler, registered[name].load())
