"""How long a step of an encoder takes, learned from the steps that it took."""

from math import inf

# A step's weight falls to a third in twenty further steps.
_DECAY = 0.95
# The least part of a step that is taken to grow with its work.
_GROWING_PART = 0.1


class StepCost:
    """A step takes what the smallest one takes, and seconds in proportion to its work besides.

    The fixed part is measured, not fitted: steps that are all alike, as a bound on their seconds
    makes them, would not tell the two apart, and larger ones would never be tried.

    Args:
        fixed: seconds of a step with next to no work.
    """

    def __init__(self, fixed: float) -> None:
        self._fixed = fixed
        self._count = self._work = self._seconds = 0.0

    def learn(self, work: float, seconds: float) -> None:
        """Args:
        work: in any unit, the same for all steps; more than 0.
        """
        self._fixed = min(self._fixed, seconds)
        self._count = _DECAY * self._count + 1
        self._work = _DECAY * self._work + work
        self._seconds = _DECAY * self._seconds + seconds

    def seconds(self, work: float) -> float:
        """What a step with so much work is expected to take; infinite before any is known."""
        if self._count == 0:
            return inf
        growing = self._seconds - self._count * self._fixed
        return self._fixed + work * max(growing, _GROWING_PART * self._seconds) / self._work
