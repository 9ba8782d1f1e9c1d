"""How unevenly the ranks' experts were loaded of late."""

from collections import deque
from collections.abc import Collection, Sequence

from moe_serve.messages import RankStats

_WINDOW = 16


class ImbalanceWindow:
    """The rows each rank's experts computed, over the last reports."""

    def __init__(self, num_ranks: int) -> None:
        self._totals: deque[tuple[int, ...]] = deque([(0,) * num_ranks], maxlen=_WINDOW)
        self._lost: Collection[int] = ()

    def add(self, stats: Sequence[RankStats]) -> None:
        totals = tuple(rank.num_expert_rows for rank in stats)
        if totals != self._totals[-1]:
            self._totals.append(totals)

    def restart(self, stats: Sequence[RankStats], lost: Collection[int]) -> None:
        """Begin anew: ranks are lost, or count from 0 again."""
        self._lost = lost
        self._totals.clear()
        self._totals.append(tuple(rank.num_expert_rows for rank in stats))

    @property
    def over_mean(self) -> Sequence[float]:
        """Of each rank; 1 is even, and so is a window in which nothing was computed. Lost ranks
        are not in the mean."""
        rows = [new - old for old, new in zip(self._totals[0], self._totals[-1], strict=True)]
        mean = sum(rows) / (len(rows) - len(self._lost))
        return [number / mean if mean else 1.0 for number in rows]

    @property
    def value(self) -> float:
        """Max over mean."""
        return max(self.over_mean)
