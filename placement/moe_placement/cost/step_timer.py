"""The StepTimer protocol: how long a worker takes for a step, whoever works it out."""

from typing import Protocol

from moe_placement.cost.step_shape import StepShape


class StepTimer(Protocol):
    """Like devices, unlike ones, or a measured curve: simulator and predictions ask only this."""

    def seconds(self, shape: StepShape) -> float:
        """Seconds of one step; 0 for a step without tokens."""
        ...
