"""Timers made from the parts of another: what a rank does alone, and experts out of balance."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from moe_placement.cost.step_shape import StepShape

# Of the step models' parts, those that a rank does for its own tokens; the experts of one rank's
# tokens are on all ranks, but they leave and come back over its own link.
RANK_PARTS = frozenset({"attention", "bridge", "dense", "elements", "exchange"})


class PartedTimer(Protocol):
    """A StepTimer that tells its seconds by part."""

    def parts(self, shape: StepShape) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class PartTimer:
    """A StepTimer of some parts of a step alone."""

    timer: PartedTimer
    names: Collection[str] = RANK_PARTS

    def seconds(self, shape: StepShape) -> float:
        parts = self.timer.parts(shape)
        return sum(seconds for name, seconds in parts.items() if name in self.names)


@dataclass(frozen=True, slots=True)
class SlowedExperts:
    """A StepTimer whose experts take `factor` times as long."""

    timer: PartedTimer
    factor: float

    def seconds(self, shape: StepShape) -> float:
        parts = self.timer.parts(shape)
        return sum(parts.values()) + (self.factor - 1) * parts.get("experts", 0.0)
