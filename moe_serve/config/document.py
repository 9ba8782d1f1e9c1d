"""The YAML file as plain lists and mappings, with `--set` applied; nothing is checked yet."""

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from moe_serve.errors import ConfigError


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f'the key "{key.value}" is given twice', problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_document(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The file's mapping with each override `section.key=value` laid over it.

    Raises:
        ConfigError: no such file, not YAML, not a mapping, or an override without a place.
    """
    document = _parse(_read(path), str(path))
    if document is None:
        raise ConfigError(f"{path}: the file is empty; it needs at least model and pools")
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected keys such as model and pools at the top")
    for override in overrides:
        _apply(document, override)
    return document


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the config file: {error.strerror}") from error


def _parse(text: str, where: str) -> Any:
    try:
        # The loader is a SafeLoader; the linter knows only the name.
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}: " if mark is not None and "\n" in text else ""
        raise ConfigError(f"{where}: {line}not valid YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def _apply(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = re.sub(r"\[(\d+)\]", r".\1", path.strip()).split(".")
    if not equals or not all(keys):
        raise ConfigError(f'--set {override}: expected "section.key=value"')
    value = _parse(text, f"--set {override}")
    place: Any = document
    for key in keys[:-1]:
        place = _step_into(place, key, override)
    if isinstance(place, list):
        place[_index(place, keys[-1], override)] = value
    elif isinstance(place, dict):
        place[keys[-1]] = value
    else:
        raise ConfigError(f"--set {override}: {'.'.join(keys[:-1])} has no keys of its own")


def _step_into(place: Any, key: str, override: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, key, override)]
    if not isinstance(place, dict):
        raise ConfigError(f'--set {override}: there is no section to hold "{key}"')
    if place.get(key) is None:
        place[key] = {}
    return place[key]


def _index(items: list[Any], key: str, override: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise ConfigError(
            f'--set {override}: "{key}" is no entry of a list of {len(items)}; '
            f"entries count from 0 to {len(items) - 1}"
        )
    return int(key)
