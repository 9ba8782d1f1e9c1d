"""vllm-ascend's `expert_map.json`: which experts each device of each MoE layer holds.

As its `VllmEplbAdaptor._export_tensor_to_file` writes it (vllm_ascend/eplb/adaptor/
vllm_adaptor.py) and `ExpertLoadBalancer` reads it (vllm_ascend/ops/expert_load_balancer.py):
`moe_layer_count`, and in `layer_list` per layer `layer_id` (MoE layers counted from 0),
`device_count` and `device_list` of `device_id` and `device_expert`, in the order of the slots.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moe_placement.load.formats.dump import read_dump
from moe_placement.load.formats.slot_lists import plans_of_slots, slots_of_plans
from moe_placement.load.trace import Ints, LoadError
from moe_placement.plan import LayerPlan, PlanError

_NAME = "expert_map.json"


def read_expert_map(path: Path, *, layers: Sequence[int] | None = None) -> dict[int, LayerPlan]:
    """Read a placement.

    Args:
        layers: the model's own numbers of its MoE layers, which the file has not.

    Raises:
        PlanError: names the file and what is wrong.
    """
    try:
        expert_LNS = _slots(read_dump(path))
        numbers = range(len(expert_LNS)) if layers is None else layers
        return plans_of_slots(expert_LNS, numbers)
    except (PlanError, LoadError) as error:
        raise PlanError(f"{path}: {error}") from error


def write_expert_map(path: Path, plans: Mapping[int, LayerPlan]) -> str:
    """Write a placement.

    Returns:
        what the file cannot say, for people; empty where nothing is lost.

    Raises:
        PlanError: ranks hold unequal numbers of experts.
    """
    expert_LNS, warning = slots_of_plans(plans, _NAME)
    layer_list = [
        {
            "layer_id": number,
            "device_count": len(devices),
            "device_list": [
                {"device_id": device, "device_expert": experts}
                for device, experts in enumerate(devices)
            ],
        }
        for number, devices in enumerate(expert_LNS.tolist())
    ]
    record = {"moe_layer_count": len(layer_list), "layer_list": layer_list}
    path.write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
    return warning


def _slots(record: Mapping[str, Any]) -> Ints:
    try:
        layers = sorted(record["layer_list"], key=lambda layer: int(layer["layer_id"]))
        if len(layers) != record["moe_layer_count"]:
            raise PlanError(f"moe_layer_count is not the {len(layers)} layers of layer_list")
        slots = [
            [
                device["device_expert"]
                for device in sorted(layer["device_list"], key=lambda each: int(each["device_id"]))
            ]
            for layer in layers
        ]
        sizes = {len(experts) for devices in slots for experts in devices}
    except KeyError as error:
        raise PlanError(f"key {error} is missing; is this an expert_map.json?") from error
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"its layers and devices are not as in an expert_map.json: {error}"
        ) from error
    counts = {len(devices) for devices in slots}
    if len(sizes) != 1 or len(counts) != 1:
        raise PlanError(
            f"layers have {sorted(counts)} devices with {sorted(sizes)} experts; all must be alike"
        )
    if not all(type(expert) is int for devices in slots for held in devices for expert in held):
        raise PlanError("device_expert holds what is no whole number; it must list experts")
    return np.array(slots, np.int64)
