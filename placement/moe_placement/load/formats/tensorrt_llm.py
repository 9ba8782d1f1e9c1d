"""TensorRT-LLM's `moe_load_balancer.yaml`: the expert of each slot of each layer.

As examples/wide_ep/ep_load_balancer/generate_eplb_config.py of NVIDIA/TensorRT-LLM writes it and
`MoeLoadBalancerConfig` reads it: `num_slots`, `initial_global_assignments` from the model's layer
number to the experts of all slots, rank after rank with as many each, and
`layer_updates_per_iter`, where 0 keeps the placement.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from moe_placement.load.formats.slot_lists import plans_of_slots, slots_of_plans
from moe_placement.plan import LayerPlan, PlanError

_NAME = "TensorRT-LLM's load balancer file"
_MOST = 1 << 31


def read_load_balancer(path: Path, *, num_ranks: int) -> dict[int, LayerPlan]:
    """Read a placement.

    Args:
        num_ranks: ranks of the EP group, which the file does not say.

    Raises:
        PlanError: names the file and what is wrong.
    """
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _plans(record, num_ranks)
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from error
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def write_load_balancer(
    path: Path, plans: Mapping[int, LayerPlan], *, layer_updates_per_iter: int = 0
) -> str:
    """Write a placement.

    Args:
        layer_updates_per_iter: layers that TensorRT-LLM moves by itself in each iteration.

    Returns:
        what the file cannot say, for people; empty where nothing is lost.

    Raises:
        PlanError: ranks hold unequal numbers of experts.
    """
    expert_LNS, warning = slots_of_plans(plans, _NAME)
    expert_LS = expert_LNS.reshape(len(expert_LNS), -1)
    lines = ["initial_global_assignments:"]
    for layer, expert_S in zip(sorted(plans), expert_LS.tolist(), strict=True):
        lines.append(f"  {layer}: {expert_S}")
    lines.append(f"layer_updates_per_iter: {layer_updates_per_iter}")
    lines.append(f"num_slots: {expert_LS.shape[1]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return warning


def _plans(record: Any, num_ranks: int) -> dict[int, LayerPlan]:
    if not isinstance(record, Mapping) or not isinstance(
        assigned := record.get("initial_global_assignments"), Mapping
    ):
        raise PlanError("key 'initial_global_assignments' must map layers to experts of slots")
    num_slots = record.get("num_slots")
    if type(num_slots) is not int or num_slots < 1:
        raise PlanError(f"num_slots is {num_slots!r}; it must be a whole number above 0")
    if num_ranks < 1 or num_slots % num_ranks:
        raise PlanError(f"{num_slots} slots do not divide evenly over {num_ranks} ranks")
    if not assigned:
        raise PlanError("key 'initial_global_assignments' has no layers")
    for layer, experts in assigned.items():
        if not _are_whole([layer]) or not isinstance(experts, list) or not _are_whole(experts):
            raise PlanError(f"layer {layer!r} must be a number with a list of experts")
        if len(experts) != num_slots:
            raise PlanError(f"layer {layer} has {len(experts)} slots; num_slots is {num_slots}")
    layers = sorted(assigned)
    expert_LS = np.array([assigned[layer] for layer in layers], np.int64)
    return plans_of_slots(expert_LS.reshape(len(layers), num_ranks, -1), layers)


def _are_whole(values: list[Any]) -> bool:
    return all(type(value) is int and abs(value) < _MOST for value in values)
