"""The plan that a simulated worker runs, and the moves to the next one."""

from collections import deque

from moe_placement.cost.step_timer import StepTimer
from moe_placement.simulator.incidents import PlanSwitch
from moe_placement.simulator.links import Links


class RunningPlan:
    """Moves what a switch's budget allows in each step, and what its link allows while idle.

    A switch that comes while another moves waits for it.

    Attributes:
        timer: of the plan in force.
    """

    def __init__(self, timer: StepTimer, links: Links) -> None:
        self.timer = timer
        self._links = links
        self._coming: deque[PlanSwitch] = deque()
        self._bytes_left = 0.0

    def switch(self, switch: PlanSwitch) -> None:
        self._coming.append(switch)
        if len(self._coming) == 1:
            self._begin()

    def idle(self, seconds: float) -> None:
        """Move for a while in which no step is taken."""
        while self._coming and seconds > 0:
            bandwidth = self._coming[0].bandwidth
            seconds -= self._move(seconds * bandwidth) / bandwidth

    def stretch(self, seconds: float) -> float:
        """Seconds of a step together with its moves."""
        if not self._coming:
            return seconds
        switch = self._coming[0]
        moving = self._move(switch.bytes_per_step) / switch.bandwidth
        return max(seconds, moving) if switch.overlaps else seconds + moving

    def _begin(self) -> None:
        """Take the next switch in hand, and those at once that move nothing."""
        while self._coming and not self._coming[0].num_bytes:
            self.timer = self._coming.popleft().timer
        if self._coming:
            self._bytes_left = self._coming[0].num_bytes

    def _move(self, limit: float) -> float:
        switch = self._coming[0]
        num_bytes = min(self._bytes_left, limit)
        self._bytes_left -= num_bytes
        if switch.link:
            self._links.count(switch.link, num_bytes)
        if not self._bytes_left:
            self.timer = self._coming.popleft().timer
            self._begin()
        return num_bytes
