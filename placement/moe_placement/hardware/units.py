"""Quantities as people write them: 80GiB, 25GB/s, 5us, 989TFLOP/s; plain numbers are base units."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, TypeVar

Value = TypeVar("Value")

_NUMBER_AND_UNIT = re.compile(r"([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ/]*)")
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_BYTES = {f"{prefix}B": Decimal(factor) for prefix, factor in (_DECIMAL | _BINARY).items()}
_BYTE_RATES = {f"{unit}/s": factor for unit, factor in _BYTES.items()}
_FLOP_RATES = {f"{prefix}FLOP/s": Decimal(factor) for prefix, factor in _DECIMAL.items()}
_SECONDS = {
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}


@dataclass(frozen=True, slots=True)
class Kind(Generic[Value]):
    """What one value of a file may be.

    Attributes:
        expected: completes "write ...".
        parse: the value, or None where it is no such thing.
    """

    expected: str
    parse: Callable[[object], Value | None]


def _number(value: object, units: Mapping[str, Decimal]) -> float | None:
    try:
        number = _any_number(value, units)
    except ArithmeticError:
        return None
    return number if number is not None and 0 <= number < math.inf else None


def _any_number(value: object, units: Mapping[str, Decimal]) -> float | None:
    if isinstance(value, int | float):
        return None if isinstance(value, bool) else float(value)
    match = _NUMBER_AND_UNIT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in {"", *units}:
        return None
    return float(Decimal(match[1]) * units.get(match[2], Decimal(1)))


def _positive(units: Mapping[str, Decimal]) -> Callable[[object], float | None]:
    return lambda value: _number(value, units) or None


def _whole_bytes(value: object) -> int | None:
    number = _number(value, _BYTES)
    return round(number) if number else None


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 1 else None


def _share(value: object) -> float | None:
    number = _number(value, {})
    return number if number is not None and 0 < number <= 1 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


BYTES = Kind("a size such as 80GiB or 512MB", _whole_bytes)
BYTES_PER_SECOND = Kind("a rate such as 25GB/s", _positive(_BYTE_RATES))
FLOPS = Kind("a rate such as 989TFLOP/s", _positive(_FLOP_RATES))
SECONDS: Kind[float] = Kind("a time such as 5us or 2ms", lambda value: _number(value, _SECONDS))
NOT_NEGATIVE: Kind[float] = Kind("a number of at least 0", lambda value: _number(value, {}))
COUNT = Kind("a whole number of at least 1", _count)
SHARE = Kind("a number above 0 and at most 1", _share)
TEXT = Kind("text", _text)
