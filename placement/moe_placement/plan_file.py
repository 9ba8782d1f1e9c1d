"""Plans as JSON files, with a format version."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moe_placement.plan import LayerPlan, Plan, PlanError, PoolPlan

FORMAT_VERSION = 1

_PLAN_TYPES = {"model": str, "num_experts": int, "epoch": int, "pools": list, "layers": dict}
_POOL_TYPES = {
    "name": str,
    "device": str,
    "ranks": list,
    "role": str,
    "weight_format": str,
    "tensor_parallel": int,
}
# Plans of one EP group may leave these out, as older files do.
_GROUP_TYPES = {"ep_group": int, "num_ep_groups": int}
_LAYER_TYPES = {"slots": list, "weights": list}


def save(plan: Plan, path: Path) -> None:
    """Write the plan so that a reader never sees half a file.

    Raises:
        PlanError: the plan is not valid.
        OSError: the file cannot be written.
    """
    plan.validate()
    draft = path.with_name(path.name + ".draft")
    draft.write_text(_to_text(plan), encoding="utf-8")
    draft.replace(path)


def load(path: Path) -> Plan:
    """Read and validate a plan.

    Raises:
        PlanError: names the file and the version, key or place that is wrong.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        plan = _to_plan(data)
        plan.validate()
    except OSError as error:
        raise PlanError(f"plan file {path} cannot be read: {error.strerror}") from error
    except PlanError as error:
        raise PlanError(f"plan file {path}: {error}") from error
    except ValueError as error:
        raise PlanError(f"plan file {path} is damaged: {error}") from error
    return plan


def _to_text(plan: Plan) -> str:
    pool_keys = (*_POOL_TYPES, *_GROUP_TYPES)
    pools = [{key: getattr(pool, key) for key in pool_keys} for pool in plan.pools]
    layers = {
        str(layer): {"slots": placement.slots, "weights": placement.weights}
        for layer, placement in plan.layers.items()
    }
    head = {"version": FORMAT_VERSION, "model": plan.model, "num_experts": plan.num_experts}
    return json.dumps({**head, "epoch": plan.epoch, "pools": pools, "layers": layers}) + "\n"


def _to_plan(data: Any) -> Plan:
    if not isinstance(data, dict) or "version" not in data:
        raise PlanError("key 'version' is missing; is this a plan file?")
    version = data["version"]
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise PlanError(
            f"format version {version!r} is not known; this program reads version "
            f"{FORMAT_VERSION}, save the plan again with it"
        )
    fields = {key: value for key, value in data.items() if key != "version"}
    _check_fields(fields, _PLAN_TYPES, "the plan")
    pools = tuple(_to_pool(pool, f"pools[{i}]") for i, pool in enumerate(fields["pools"]))
    layers = {_to_layer_index(key): _to_layer(key, value) for key, value in data["layers"].items()}
    return Plan(data["model"], data["num_experts"], pools, layers, data["epoch"])


def _to_pool(data: Any, place: str) -> PoolPlan:
    _check_fields(data, _POOL_TYPES, place, _GROUP_TYPES)
    ranks = _to_numbers(data["ranks"], f"{place}.ranks", (int,))
    return PoolPlan(**{**data, "ranks": ranks})


def _to_layer_index(key: str) -> int:
    if not (key.isascii() and key.isdigit()):
        raise PlanError(f"layers: key {key!r} is not a layer number")
    return int(key)


def _to_layer(key: str, data: Any) -> LayerPlan:
    place = f"layers[{key}]"
    _check_fields(data, _LAYER_TYPES, place)
    return LayerPlan(
        tuple(_to_numbers(row, f"{place}.slots", (int,)) for row in data["slots"]),
        tuple(_to_numbers(row, f"{place}.weights", (int, float)) for row in data["weights"]),
    )


def _to_numbers(row: Any, place: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if not isinstance(row, list) or any(type(item) not in kinds for item in row):
        raise PlanError(f"{place} must be a list of {kinds[-1].__name__}, found {str(row)[:60]}")
    return tuple(row)


def _check_fields(
    data: Any, types: Mapping[str, type], place: str, optional: Mapping[str, type] | None = None
) -> None:
    known = {**types, **(optional or {})}
    if not isinstance(data, dict):
        raise PlanError(f"{place} must be an object, found {type(data).__name__}")
    for key in data.keys() - known.keys():
        raise PlanError(f"{place} has unknown key {key!r}; it has {', '.join(known)}")
    for key in types:
        if key not in data:
            raise PlanError(f"key {key!r} is missing in {place}")
    for key, value in data.items():
        if type(value) is not known[key]:
            raise PlanError(
                f"{key!r} in {place} must be {known[key].__name__}, found {type(value).__name__}"
            )
