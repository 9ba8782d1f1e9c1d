"""Placements as other balancers write them: equal numbers of slots per rank, an expert in each.

Shapes: L MoE layers, N ranks, S slots of one rank.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from moe_placement.load.trace import Ints
from moe_placement.plan import LayerPlan, PlanError

# A share that a thousand rows would not show is even.
_SAME_SHARE = 1e-3


def plans_of_slots(expert_LNS: Ints, layers: Sequence[int]) -> dict[int, LayerPlan]:
    """Layers of a plan from slots, whose replicas share evenly.

    An expert that is twice on a rank becomes one replica with the shares of both.

    Raises:
        PlanError: layers that are too few, or an expert that is on no rank.
    """
    if expert_LNS.ndim != 3 or 0 in expert_LNS.shape or len(layers) != len(expert_LNS):
        raise PlanError(
            f"slots of shape {expert_LNS.shape} (layers, ranks, slots) with {len(layers)} layer "
            "numbers; there must be as many, and none of them empty"
        )
    if expert_LNS.min() < 0:
        raise PlanError(f"a slot holds expert {expert_LNS.min()}; there must be one in every slot")
    num_experts = int(expert_LNS.max()) + 1
    if num_experts > expert_LNS[0].size:
        raise PlanError(
            f"a slot holds expert {num_experts - 1}, but a layer has {expert_LNS[0].size} slots; "
            "each expert needs one at least"
        )
    plans = {}
    for layer, expert_NS in zip(layers, expert_LNS, strict=True):
        plans[layer] = _layer_plan(expert_NS, num_experts)
        plans[layer].validate(layer, {0: range(len(expert_NS))}, num_experts)
    return plans


def _layer_plan(expert_NS: Ints, num_experts: int) -> LayerPlan:
    count_E = np.bincount(expert_NS.ravel(), minlength=num_experts)
    held = [Counter(experts) for experts in expert_NS.tolist()]
    return LayerPlan(
        slots=tuple(tuple(experts) for experts in held),
        weights=tuple(
            tuple(float(times / count_E[expert]) for expert, times in experts.items())
            for experts in held
        ),
    )


def slots_of_plans(plans: Mapping[int, LayerPlan], format_name: str) -> tuple[Ints, str]:
    """The slots, layer by layer in the order of their numbers, and what the format cannot say.

    Returns:
        (L, N, S) experts, and a warning for people: empty where nothing is lost.

    Raises:
        PlanError: ranks that hold unequal numbers of experts, several EP groups, or no layers.
    """
    if not plans:
        raise PlanError(f"a plan without MoE layers cannot be written as {format_name}")
    num_slots = len(plans[min(plans)].slots[0])
    uneven_by_layer: dict[int, int] = {}
    for layer, plan in sorted(plans.items()):
        for rank, experts in enumerate(plan.slots):
            if len(experts) != num_slots:
                raise PlanError(
                    f"{format_name} wants as many experts on every rank: layer {layer}, rank "
                    f"{rank} has {len(experts)}, others {num_slots}; solve with equal slots"
                )
        uneven_by_layer[layer] = _num_uneven(layer, plan, format_name)
    expert_LNS = np.array([plan.slots for _, plan in sorted(plans.items())], np.int64)
    return expert_LNS, _warning(uneven_by_layer, format_name)


def _num_uneven(layer: int, plan: LayerPlan, format_name: str) -> int:
    """Experts of a layer whose replicas share unevenly."""
    shares: dict[int, list[float]] = {}
    for experts, weights in zip(plan.slots, plan.weights, strict=True):
        for expert, weight in zip(experts, weights, strict=True):
            shares.setdefault(expert, []).append(weight)
    for expert, weights_of in shares.items():
        if abs(sum(weights_of) - 1.0) > _SAME_SHARE:
            raise PlanError(
                f"layer {layer}: the weights of expert {expert} sum to {sum(weights_of):.4g}, so "
                f"the plan has several EP groups; {format_name} holds one, write each by itself"
            )
    return sum(max(each) - min(each) > _SAME_SHARE for each in shares.values())


def _warning(uneven_by_layer: Mapping[int, int], format_name: str) -> str:
    num_uneven = sum(uneven_by_layer.values())
    if not num_uneven:
        return ""
    num_layers = sum(count > 0 for count in uneven_by_layer.values())
    return (
        f"{format_name} has no weights: the replicas of {num_uneven} experts in {num_layers} "
        "layers share unevenly in the plan and will share evenly there"
    )
