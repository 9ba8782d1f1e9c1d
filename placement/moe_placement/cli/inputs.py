"""From options to values: each reads what a command needs, and names what is wrong."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from moe_placement.cli.exchange import read_any_load, read_export
from moe_placement.cli.parser import UsageError
from moe_placement.cost.coefficients import Coefficients, load_coefficients
from moe_placement.hardware.cluster import ClusterSpec
from moe_placement.hardware.cluster_file import load_cluster, parse_groups
from moe_placement.hardware.units import BYTES, SECONDS, SHARE, Kind, Value
from moe_placement.load.trace import ExpertLoad
from moe_placement.model.catalogue import find_model
from moe_placement.model.formats import FORMATS
from moe_placement.model.spec import ModelSpec
from moe_placement.plan_file import load as load_plan
from moe_placement.serving.workload import Objective
from moe_placement.solver.constraints import Constraints

_LIMITS = ("redundancy", "max_context", "memory_fraction", "max_tokens_per_step", "max_sequences")
_SHIPPED = "shipped"


def read_model(options: argparse.Namespace) -> ModelSpec:
    return find_model(options.model)


def read_cluster(options: argparse.Namespace) -> ClusterSpec:
    return load_cluster(options.cluster) if options.cluster else parse_groups(options.devices)


def read_coefficients(options: argparse.Namespace) -> Coefficients:
    return load_coefficients(
        None if options.coefficients == _SHIPPED else Path(options.coefficients)
    )


def read_objective(options: argparse.Namespace) -> Objective:
    """`ttft=2s,tpot=50ms,percentile=0.95`, each once and in any order."""
    kinds: dict[str, Kind[float]] = {"ttft": SECONDS, "tpot": SECONDS, "percentile": SHARE}
    found: dict[str, float] = {}
    for key, text in _pairs("--slo", options.slo):
        if key not in kinds:
            raise UsageError(f"--slo: unknown key {key!r}; keys: {', '.join(kinds)}")
        found[key] = _parsed(f"--slo: {key}", text, kinds[key])
    return Objective(**found)


def read_load(options: argparse.Namespace, spec: ModelSpec) -> ExpertLoad | None:
    """The record of expert load, of the model's own layers and experts."""
    if options.load is None:
        return None
    load = read_any_load(options.load, spec, options.model)
    if (load.layers, load.num_experts) != (spec.moe_layers, spec.num_experts):
        raise UsageError(
            f"--load {options.load}: has {load.num_layers} layers of {load.num_experts} experts, "
            f"{options.model} has {len(spec.moe_layers)} of {spec.num_experts}; record it with "
            "this model"
        )
    return load


def read_constraints(options: argparse.Namespace, cluster: ClusterSpec) -> Constraints:
    """Limits given, and those that nobody gave as they are by default."""
    given: dict[str, Any] = {
        name: getattr(options, name) for name in _LIMITS if getattr(options, name) is not None
    }
    if options.move:
        if not options.old:
            raise UsageError("--move limits what is loaded to leave --old PLAN.json; give both")
        given["move_bytes"] = _parsed("--move", options.move, BYTES)
    constraints = Constraints(
        formats=_formats(options.weights, cluster),
        phases=options.phases,
        mixing=options.mixing,
        spread=options.spread,
        even=_is_for_another_engine(options),
        old=load_plan(options.old) if options.old else None,
        runnable_by="engine" if options.runnable else "any",
        **given,
    )
    _check_counts(constraints)
    constraints.check(cluster)
    return constraints


def _is_for_another_engine(options: argparse.Namespace) -> bool:
    """Whether the placement is exported, to engines that share rows evenly among replicas."""
    text = getattr(options, "export", None)
    return text is not None and bool(read_export(text))


def _formats(text: str, cluster: ClusterSpec) -> dict[str, tuple[str, ...]]:
    if not text:
        return {}
    if "=" not in text:
        return {group.name: _format_names(text) for group in cluster.groups}
    return {name: _format_names(words) for name, words in _pairs("--weights", text)}


def _format_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split("|"))
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--weights: unknown format {name!r}; use {', '.join(FORMATS)}")
    return names


def _check_counts(constraints: Constraints) -> None:
    for field in fields(constraints):
        value = getattr(constraints, field.name)
        if field.name.startswith("max_") and value < (0 if field.name == "max_context" else 1):
            raise UsageError(f"--{field.name.replace('_', '-')} {value}: must be at least 1")


def _pairs(option: str, text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key.strip() in dict(pairs):
            fault = "is given twice" if equals else "has no ="
            raise UsageError(f"{option} {text!r}: {part.strip()!r} {fault}; write key=value,...")
        pairs.append((key.strip(), value.strip()))
    return pairs


def _parsed(what: str, text: str, kind: Kind[Value]) -> Value:
    value = kind.parse(float(text) if _is_number(text) else text)
    if value is None:
        raise UsageError(f"{what} is {text!r}; write {kind.expected}")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
