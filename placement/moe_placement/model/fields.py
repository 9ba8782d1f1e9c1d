"""Reads the numbers of a Hugging Face config.json, with the defaults of its architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Each is gone through one by one; no model has nearly as many.
_ONE_BY_ONE = ("num_hidden_layers", "n_routed_experts", "num_experts", "num_local_experts")
_MOST = 10_000


class SpecError(ValueError):
    """A config.json whose numbers cannot describe a model."""


@dataclass(frozen=True, slots=True)
class ConfigFields:
    """A config.json.

    Attributes:
        values: the file.
        defaults: what transformers' config class has where the file is silent.
        aliases: the other name that a key may have in the file.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str]

    def find(self, key: str) -> Any:
        if key in self.values:
            return self.values[key]
        if self.aliases.get(key) in self.values:
            return self.values[self.aliases[key]]
        return self.defaults.get(key)

    def count(self, key: str) -> int:
        """A whole number, 0 or above; SpecError otherwise."""
        value = self.find(key)
        if type(value) is not int or value < 0:
            raise SpecError(f"config.json has {key} {value!r}; it must be a whole number")
        if key in _ONE_BY_ONE and value > _MOST:
            raise SpecError(f"config.json has {key} {value}; no model has more than {_MOST}")
        return value

    def size(self, key: str) -> int:
        """A whole number above 0; SpecError otherwise."""
        value = self.count(key)
        if value == 0:
            raise SpecError(f"config.json has {key} 0; it must be above 0")
        return value

    def optional(self, key: str) -> int | None:
        """A whole number, or None where the key is null, or absent without a default."""
        return None if self.find(key) is None else self.count(key)

    def flag(self, key: str) -> bool:
        value = self.find(key)
        if type(value) is not bool:
            raise SpecError(f"config.json has {key} {value!r}; it must be true or false")
        return value
