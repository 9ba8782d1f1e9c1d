"""Strict reading of YAML files: each key is asked for once, and what is left over is an error."""

from collections.abc import Hashable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from moe_placement.hardware.units import Kind, Value


class HardwareError(ValueError):
    """A device or cluster that is not known, or a file of them that is wrong."""


class _StrictLoader(yaml.SafeLoader):
    """A key given twice is an error, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                problem=f"key {twice!r} is there twice; keep one", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep=True)


class Section:
    """One mapping of a file. Every error names the file, the key, the value and the fix."""

    def __init__(self, value: object, file: str, where: str = "") -> None:
        """`where` is the path of keys that leads to this mapping; empty at the top."""
        self.file = file
        self.where = where
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.error(f"{where or 'the file'} is {_short(value)}; write keys and values")
        self._left: dict[str, object] = dict(value)
        self._known: list[str] = []

    def take(self, key: str, kind: Kind[Value]) -> Value:
        """The value of a key that must be there."""
        if key not in self._left:
            raise self.error(
                f"{self._join(key)} is missing; write {kind.expected}{self._hint(key)}"
            )
        return self._parse(key, self._pop(key), kind)

    def get(self, key: str, kind: Kind[Value], default: Value) -> Value:
        """The value of a key that may be left out."""
        value = self.find(key, kind)
        return default if value is None else value

    def find(self, key: str, kind: Kind[Value]) -> Value | None:
        """The value of a key, None where it is left out."""
        value = self._pop(key)
        return None if value is None else self._parse(key, value, kind)

    def section(self, key: str) -> "Section":
        """A mapping below a key; empty where the key is left out."""
        value = self._pop(key)
        return Section({} if value is None else value, self.file, self._join(key))

    def sections(self, key: str) -> list["Section"]:
        """A list of mappings below a key; empty where the key is left out."""
        return [
            Section(item, self.file, f"{self._join(key)}[{number}]")
            for number, item in enumerate(self._list(key))
        ]

    def words(self, key: str) -> tuple[str, ...]:
        """A list of words below a key; empty where the key is left out."""
        items = self._list(key)
        if not all(isinstance(item, str) for item in items):
            raise self.error(f"{self._join(key)} is {_short(items)}; write a list of words")
        return tuple(str(item) for item in items)

    @property
    def left(self) -> tuple[str, ...]:
        """The keys that were not asked for yet."""
        return tuple(self._left)

    def each(self, kind: Kind[Value]) -> dict[str, Value]:
        """All values of a mapping whose keys are free."""
        return {key: self.take(key, kind) for key in self.left}

    def each_section(self) -> Iterator[tuple[str, "Section"]]:
        """All mappings of a mapping whose keys are free."""
        for key in self.left:
            yield key, self.section(key)

    def finish(self) -> None:
        """Raise HardwareError if a key was not asked for."""
        for key in self._left:
            close = get_close_matches(key, self._known, n=1)
            known = ", ".join(dict.fromkeys(self._known))
            fix = f'did you mean "{close[0]}"?' if close else f"keys: {known}"
            raise self.error(f"unknown key {self._join(key)!r}; {fix}")

    def error(self, text: str) -> HardwareError:
        return HardwareError(f"{self.file}: {text}")

    def _pop(self, key: str) -> object:
        self._known.append(key)
        return self._left.pop(key, None)

    def _list(self, key: str) -> list[object]:
        value = self._pop(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(f"{self._join(key)} is {_short(value)}; write a list")
        return value

    def _parse(self, key: str, value: object, kind: Kind[Value]) -> Value:
        parsed = kind.parse(value)
        if parsed is None:
            raise self.error(f"{self._join(key)} is {_short(value)}; write {kind.expected}")
        return parsed

    def _join(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def _hint(self, key: str) -> str:
        close = get_close_matches(key, list(self._left), n=1)
        return f' (found "{close[0]}")' if close else ""


def read_section(path: Path) -> Section:
    """The mapping that a YAML file holds; HardwareError where it cannot be read."""
    return Section(read_document(path), str(path))


def read_document(path: Path) -> Any:
    """What a YAML file holds, an empty mapping where that is nothing; HardwareError where it
    cannot be read."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise HardwareError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise HardwareError(f"{path}, line {line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise HardwareError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return {} if value is None else value


def plain(mapping: Mapping[str, object]) -> str:
    """YAML text of a mapping, keys in the order given."""
    return yaml.safe_dump(dict(mapping), sort_keys=False, allow_unicode=True, width=100)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
