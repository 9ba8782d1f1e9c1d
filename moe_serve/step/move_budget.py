"""What loading experts may take beside one step: so many bytes, and a share of the step's time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

# Of the time since experts were last loaded: a step lasts no longer than by that, and one piece.
_SHARE_OF_TIME = 0.1
# Beside short steps, or none, single pieces would take for ever.
_LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveLimits:
    """What moving may take of one rank.

    Attributes:
        bytes_per_step: of the checkpoint, read and packed beside one step.
        expert_bytes: of one packed expert.
        room: bytes for experts, those that leave and those that come together.
    """

    bytes_per_step: int
    expert_bytes: int
    room: int


class MoveBudget:
    """What one step takes beyond its bytes, the next ones do without.

    Attributes:
        seconds: spent so far.
    """

    def __init__(self, limits: MoveLimits) -> None:
        self.seconds = 0.0
        self._bytes_per_step = limits.bytes_per_step
        self.restart()

    def restart(self) -> None:
        """Nothing was spent until now."""
        self._allowance = 0
        self._spent_until = time.perf_counter()

    def spend(self, pieces: Iterator[int]) -> bool:
        """Do pieces of work, which yield their bytes, as long as there is budget beside one step
        -> whether all are done."""
        begun = time.perf_counter()
        end = begun + max(_LEAST_SECONDS, _SHARE_OF_TIME * (begun - self._spent_until))
        self._allowance = min(self._allowance, 0) + self._bytes_per_step
        try:
            while self._allowance > 0:
                self._allowance -= next(pieces)
                if time.perf_counter() >= end:
                    break
        except StopIteration:
            return True
        finally:
            self._spent_until = time.perf_counter()
            self.seconds += self._spent_until - begun
        return False
