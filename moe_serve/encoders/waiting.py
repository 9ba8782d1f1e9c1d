"""The inputs that wait to be encoded, and which of them go together."""

from bisect import bisect_left, insort
from collections.abc import Callable

# Padding is computed for nothing: at most this part of a step, or a few tokens.
_PADDING_SHARE = 0.25
_FEW_TOKENS = 16

Fits = Callable[[int, int], bool]
_Place = tuple[int, int, str]


class WaitingInputs:
    """Waiting inputs by length. The oldest is in every batch, so that none waits for ever; those
    nearest to it in length go with it, since all are padded to the longest."""

    def __init__(self) -> None:
        self._by_length: list[_Place] = []
        self._places: dict[str, _Place] = {}  # in the order of arrival
        self._num_arrived = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, name: str, length: int) -> None:
        """Args:
        name: not among those that wait.
        length: tokens, at least 1.
        """
        self._num_arrived += 1
        place = self._places[name] = (length, self._num_arrived, name)
        insort(self._by_length, place)

    def remove(self, name: str) -> None:
        del self._by_length[bisect_left(self._by_length, self._places.pop(name))]

    def take(self, fits: Fits) -> list[str]:
        """The next batch, by rising length; at least the oldest input, nothing where none waits.

        Args:
            fits: whether so many inputs, padded to such a length, are not too much.
        """
        if not self._places:
            return []
        order = self._by_length
        low = bisect_left(order, next(iter(self._places.values())))
        longest = num_real = order[low][0]
        high = low + 1
        while low > 0 and _go(high - low + 1, longest, num_real + order[low - 1][0], fits):
            low -= 1
            num_real += order[low][0]
        while high < len(order):
            longest = order[high][0]
            if not _go(high - low + 1, longest, num_real + longest, fits):
                break
            num_real += longest
            high += 1
        batch = order[low:high]
        del order[low:high]
        for _, _, name in batch:
            del self._places[name]
        return [name for _, _, name in batch]


def _go(num_inputs: int, longest: int, num_real: int, fits: Fits) -> bool:
    """Whether inputs of `num_real` tokens altogether go together."""
    num_padded = num_inputs * longest
    padding = num_padded - num_real
    return padding <= max(_PADDING_SHARE * num_padded, _FEW_TOKENS) and fits(num_inputs, longest)
