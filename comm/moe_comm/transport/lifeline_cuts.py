"""Which mpiruns must go where some of them cannot reach one another: as few as can be."""

import time
from collections import Counter
from collections.abc import Callable, Collection


class Cuts:
    """What is told of one cut comes from several ranks: it is collected for a moment.

    Args:
        seconds: of that moment.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = 0.0
        self._pairs: set[frozenset[int]] = set()

    def note(self, one: int, other: int) -> None:
        """Two mpiruns between which there is no way."""
        if one == other:
            return
        if not self._pairs:
            self._since = time.monotonic()
        self._pairs.add(frozenset((one, other)))

    def forget(self) -> None:
        self._pairs.clear()

    def settle(self, kept: int, weakness: Callable[[int], tuple[float, ...]]) -> set[int]:
        """Mpiruns to do without, as `choose_lost` has it; none before the moment is over."""
        if not self._pairs or time.monotonic() - self._since < self._seconds:
            return set()
        return choose_lost(self._pairs, kept, weakness)


def choose_lost(
    pairs: Collection[frozenset[int]], kept: int, weakness: Callable[[int], tuple[float, ...]]
) -> set[int]:
    """All others can reach one another; a greedy vertex cover.

    Args:
        pairs: mpiruns between which there is no way.
        kept: is none of those that go.
        weakness: of two that are cut off from equally many, who has more of it goes.
    """
    lost: set[int] = set()
    left = set(pairs)
    while left:
        num_cuts = Counter(each for pair in left for each in pair if each != kept)
        worst = max(num_cuts, key=lambda each: (num_cuts[each], *weakness(each)))
        lost.add(worst)
        left = {pair for pair in left if worst not in pair}
    return lost
