"""The fields of one row of a trace, with errors that name file, line and key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")


class TraceError(ValueError):
    """A trace that cannot be read as one."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """Attributes:
    line: counted from 1.
    """

    path: Path
    line: int
    values: Mapping[str, Any]

    def count(self, key: str) -> int:
        """Tokens, of which there must be at least 1."""
        count = self.parsed(key, _whole, "a whole number")
        if count < 1:
            raise self._error(key, "1 or more tokens")
        return count

    def seconds(self, key: str) -> float:
        """A finite number."""
        return self.parsed(key, _finite, "a number")

    def integers(self, key: str) -> tuple[int, ...]:
        """A list, empty where the key is missing."""
        return self.parsed(key, _integers, "a list of whole numbers") if key in self.values else ()

    def parsed(self, key: str, parse: Callable[[Any], Value], wanted: str) -> Value:
        """The value of a key; TraceError where it is not what is wanted."""
        try:
            return parse(self.values[key])
        except (TypeError, ValueError, OverflowError):
            raise self._error(key, wanted) from None

    def _error(self, key: str, wanted: str) -> TraceError:
        found = self.values[key]
        return TraceError(f"{self.path}:{self.line}: {key} is {found!r}; give {wanted}")


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, bool) or number != float(value):
        raise ValueError(value)
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not isfinite(number):
        raise ValueError(value)
    return number


def _integers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(value)
    return tuple(_whole(item) for item in value)
