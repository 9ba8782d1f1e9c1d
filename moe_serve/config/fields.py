"""Plain YAML values to frozen dataclasses, strictly: the annotations are the schema."""

import re
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from moe_serve.config.rules import nearest
from moe_serve.config.units import Quantity
from moe_serve.errors import ConfigError

Section = TypeVar("Section")
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_NAMES: dict[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a section of keys",
    type(None): "nothing",
}


def build(section: type[Section], value: object, where: str) -> Section:
    """The dataclass `section` from a mapping found at `where`.

    Raises:
        ConfigError: an unknown or missing key, a wrong type or a value out of range.
    """
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise wrong(where, value, _NAMES[dict])
    keys = {field.name: field for field in fields(section)}  # type: ignore[arg-type]
    for key in value:
        if key not in keys:
            raise ConfigError(f"{join(where, key)}: unknown key; {nearest(str(key), list(keys))}")
    for key, field in keys.items():
        if key not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{join(where, key)}: this key is required and missing")
    hints = get_type_hints(section, include_extras=True)
    return section(
        **{key: convert(hints[key], item, join(where, key)) for key, item in value.items()}
    )


def convert(kind: Any, value: object, where: str) -> Any:
    """`value` as the annotation `kind` wants it, its rules kept."""
    if get_origin(kind) is Annotated:
        base, *rules = get_args(kind)
        return _with_rules(base, rules, value, where)
    if get_origin(kind) is tuple:
        return _sequence(get_args(kind), value, where)
    if is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, where)  # type: ignore[arg-type]
    if kind is float and _is_number(value):
        return float(value)  # type: ignore[arg-type]
    if type(value) is not kind:
        raise wrong(where, value, _NAMES[kind])
    return value


def _is_number(value: object) -> bool:
    """YAML takes 1e-5, which has no point, for text."""
    return type(value) is int or (isinstance(value, str) and _EXPONENT.fullmatch(value) is not None)


def join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def wrong(where: str, value: object, expected: str) -> ConfigError:
    """The error for a value that is not what its key wants."""
    found = _NAMES.get(type(value), type(value).__name__)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        found = f"{value!r} ({found})"
    elif isinstance(value, bool):
        found = str(value).lower()
    return ConfigError(f"{where or 'the file'}: expected {expected}, got {found}")


def _with_rules(base: Any, rules: Sequence[Any], value: object, where: str) -> Any:
    for rule in rules:
        if isinstance(rule, Quantity):
            value = _from_quantity(base, rule, value, where)
            continue
        value = convert(base, value, where)
        if not rule.accepts(value):
            raise wrong(where, value, rule.expected)
    return value


def _from_quantity(base: Any, rule: Quantity, value: object, where: str) -> object:
    if isinstance(value, str):
        number = rule.parse(value)
        if number is None:
            raise wrong(where, value, rule.expected)
        return base(number)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise wrong(where, value, rule.expected)
    return value


def _sequence(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise wrong(where, value, _NAMES[list])
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ConfigError(f"{where}: expected {len(kinds)} entries, got {len(value)}")
    return tuple(
        convert(kind, item, f"{where}[{index}]")
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
