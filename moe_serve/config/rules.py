"""What a single config value may be; written beside the field that it limits."""

import math
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Range:
    """A number from `low` to `high`, both included; `above` leaves `low` itself out."""

    low: float
    high: float = math.inf
    above: bool = False

    @property
    def expected(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"

    def accepts(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return self.low <= value <= self.high and not (self.above and value == self.low)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.words)}"

    def accepts(self, value: object) -> bool:
        return value in self.words


@dataclass(frozen=True, slots=True)
class NotEmpty:
    """Text or a list with something in it."""

    expected: str = "something that is not empty"

    def accepts(self, value: object) -> bool:
        return bool(value)


def nearest(word: str, known: list[str]) -> str:
    """Half a sentence that helps who wrote `word` where one of `known` was wanted."""
    close = get_close_matches(word, known, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"the keys here are {', '.join(known)}"
