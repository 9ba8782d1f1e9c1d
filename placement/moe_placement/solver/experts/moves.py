"""One move of local search in each of some layers, and which of several is best.

Shapes: X layers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.problem import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """Attributes:
    seconds_X: of the slower one of the two ranks, after the move; inf where there is none.
    from_X: slot on the slowest rank.
    to_X: slot on the other rank.
    rows_X: rows that go; all of them empty the slot.
    is_swap_X: the two slots exchange all they hold.
    """

    seconds_X: Floats
    from_X: Ints
    to_X: Ints
    rows_X: Floats
    is_swap_X: NDArray[np.bool_]

    def take(self, chosen_X: NDArray[np.bool_]) -> "Moves":
        """Those of some layers."""
        return Moves(
            self.seconds_X[chosen_X],
            self.from_X[chosen_X],
            self.to_X[chosen_X],
            self.rows_X[chosen_X],
            self.is_swap_X[chosen_X],
        )

    def or_better(self, other: "Moves") -> "Moves":
        """The faster one of two in each layer."""
        is_better_X = other.seconds_X < self.seconds_X
        return Moves(
            np.where(is_better_X, other.seconds_X, self.seconds_X),
            np.where(is_better_X, other.from_X, self.from_X),
            np.where(is_better_X, other.to_X, self.to_X),
            np.where(is_better_X, other.rows_X, self.rows_X),
            np.where(is_better_X, other.is_swap_X, self.is_swap_X),
        )


def least(seconds: Floats) -> tuple[Floats, tuple[Ints, ...]]:
    """Of each layer the least figure and its place in the other axes."""
    flat = seconds.reshape(len(seconds), -1)
    place = flat.argmin(1)
    return flat[np.arange(len(flat)), place], np.unravel_index(place, seconds.shape[1:])
