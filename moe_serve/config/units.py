"""Quantities with units, as people write them: 80GiB, 25GB/s, 5us."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated

from moe_serve.config.rules import Range

_NUMBER_AND_UNIT = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(\S*)")
_BYTES = tuple(
    [("", 1), ("B", 1), ("kB", 10**3), ("KB", 10**3)]
    + [(f"{letter}B", 1000**power) for power, letter in enumerate("MGTP", 2)]
    + [(f"{letter}iB", 1024**power) for power, letter in enumerate("KMGTP", 1)]
)
_SECONDS = (
    ("s", Decimal(1)),
    ("ms", Decimal("1e-3")),
    ("us", Decimal("1e-6")),
    ("µs", Decimal("1e-6")),
    ("ns", Decimal("1e-9")),
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A rule that turns text with a unit into a number; plain numbers are in the base unit."""

    expected: str
    units: tuple[tuple[str, int | Decimal], ...]

    def parse(self, text: str) -> Decimal | None:
        """The number in base units, or None where the text is no such quantity."""
        match = _NUMBER_AND_UNIT.fullmatch(text.strip())
        factors = dict(self.units)
        if match is None or match[2] not in factors:
            return None
        try:
            return Decimal(match[1]) * factors[match[2]]
        except InvalidOperation:
            return None


_PER_SECOND = (("", 1), ("/s", 1))

BYTES = Quantity("a size such as 80GiB or 512MB", _BYTES)
BYTES_PER_SECOND = Quantity(
    "a rate such as 25GB/s", tuple((f"{name}/s", factor) for name, factor in _BYTES if name)
)
SECONDS = Quantity("a time such as 5us or 2ms", _SECONDS)
PER_SECOND = Quantity("a number or a rate such as 2/s", _PER_SECOND)

Bytes = Annotated[int, BYTES, Range(0)]
BytesPerSecond = Annotated[float, BYTES_PER_SECOND, Range(0, above=True)]
Seconds = Annotated[float, SECONDS, Range(0)]
PerSecond = Annotated[float, PER_SECOND, Range(0)]
