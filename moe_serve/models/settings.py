"""What a model's config.json says, read field by field with errors that name the field."""

from collections.abc import Mapping
from math import inf
from typing import Any

from moe_serve.errors import CheckpointError, UnsupportedError


class Settings:
    """A config.json. A field may have several spellings; null counts as absent."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    @property
    def architecture(self) -> str:
        names = self._config.get("architectures") or "(none)"
        return str(names[0] if isinstance(names, list) else names)

    def integer(self, *names: str, default: int | None = None) -> int:
        value = self._find(names, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CheckpointError(f"config.json: {names[0]} is {value!r}, expected an integer")
        return value

    def optional_integer(self, *names: str) -> int | None:
        return self.integer(*names) if self.has(*names) else None

    def number(self, *names: str, default: float | None = None) -> float:
        value = self._find(names, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(f"config.json: {names[0]} is {value!r}, expected a number")
        return float(value)

    def positive(self, name: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.number(name, default=default)
        if not 0 < value < inf:
            raise CheckpointError(f"config.json: {name} is {value!r}, expected a number above 0")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._find((name,), default)
        if not isinstance(value, bool):
            raise CheckpointError(f"config.json: {name} is {value!r}, expected true or false")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of integers, empty where absent."""
        values = self._find((name,), [])
        if not isinstance(values, list) or any(type(value) is not int for value in values):
            raise CheckpointError(f"config.json: {name} is {values!r}, expected a list of integers")
        return tuple(values)

    def table(self, name: str) -> dict[str, Any]:
        """A nested object, empty where absent."""
        value = self._find((name,), {})
        if not isinstance(value, Mapping):
            raise CheckpointError(f"config.json: {name} is {value!r}, expected an object")
        return dict(value)

    def has(self, *names: str) -> bool:
        return any(self._config.get(name) is not None for name in names)

    def require(self, name: str, default: Any, *supported: Any) -> Any:
        """A field of which only some values are supported; absent counts as `default`.

        Raises:
            UnsupportedError: it has another one.
        """
        value = self._find((name,), default)
        if value not in supported:
            known = ", ".join(map(str, supported))
            raise UnsupportedError(
                f"{self.architecture} with {name}={value} is not supported; supported: {known}"
            )
        return value

    def _find(self, names: tuple[str, ...], default: Any) -> Any:
        for name in names:
            if self._config.get(name) is not None:
                return self._config[name]
        if default is None:
            raise CheckpointError(
                f"config.json has no {names[0]}, which {self.architecture} needs; "
                "copy it again from where the model came from"
            )
        return default
