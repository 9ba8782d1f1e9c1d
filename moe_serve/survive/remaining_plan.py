"""The plan that is left of another one when some of its ranks are lost."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from moe_placement.plan import LayerPlan, Plan

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, order=True)
class Missing:
    """An expert that no rank of an EP group holds."""

    group: int
    layer: int
    expert: int


def groups_left(plan: Plan, lost: Collection[int]) -> dict[int, tuple[int, ...]]:
    """The plan ranks of each EP group that are not lost; groups without any are left out."""
    left = {
        group: tuple(rank for rank in ranks if rank not in lost)
        for group, ranks in plan.ep_groups().items()
    }
    return {group: ranks for group, ranks in left.items() if ranks}


def plan_without(plan: Plan, lost: Collection[int]) -> Plan:
    """Plan ranks keep their numbers; lost ones keep no slots, and in each EP group the other
    replicas of their experts share all of the tokens, in the proportion that they had."""
    left = groups_left(plan, lost)
    layers = {layer: _layer_without(placed, left) for layer, placed in plan.layers.items()}
    return replace(plan, layers=layers, epoch=plan.epoch + 1)


def plan_with(plan: Plan, whole: Plan, returned: Collection[int]) -> Plan:
    """A plan, and what another one has on some ranks; `plan_without` evens out the weights."""
    layers = {
        layer: LayerPlan(
            _replaced(placed.slots, whole.layers[layer].slots, returned),
            _replaced(placed.weights, whole.layers[layer].weights, returned),
        )
        for layer, placed in plan.layers.items()
    }
    return replace(plan, layers=layers)


def find_missing(plan: Plan, lost: Collection[int]) -> list[Missing]:
    """Experts that an EP group with ranks has nowhere, in order."""
    return [
        Missing(group, layer, expert)
        for group, ranks in groups_left(plan, lost).items()
        for layer, placed in plan.layers.items()
        for expert in sorted(
            set(range(plan.num_experts)) - {each for rank in ranks for each in placed.slots[rank]}
        )
    ]


def with_missing(plan: Plan, places: Mapping[Missing, int]) -> Plan:
    """Missing experts on their new ranks, in slots behind those that are there."""
    layers = dict(plan.layers)
    for missing, rank in places.items():
        placed = layers[missing.layer]
        layers[missing.layer] = LayerPlan(
            _extended(placed.slots, rank, missing.expert), _extended(placed.weights, rank, 1.0)
        )
    return replace(plan, layers=layers)


def choose_ranks(
    plan: Plan, missing: Sequence[Missing], lost: Collection[int], room: Mapping[int, int]
) -> dict[Missing, int]:
    """A rank for each missing expert: the least loaded of its group's with room for it.

    Args:
        room: slots that each rank can still take.

    Returns:
        Without those experts for which there is no room.
    """
    left, free = groups_left(plan, lost), dict(room)
    load = {
        (layer, rank): sum(weights)
        for layer, placed in plan.layers.items()
        for rank, weights in enumerate(placed.weights)
    }
    chosen: dict[Missing, int] = {}
    for each in missing:
        ranks = [rank for rank in left[each.group] if free.get(rank, 0) > 0]
        if not ranks:
            continue
        rank = min(ranks, key=lambda rank: (load[each.layer, rank], -free[rank], rank))
        chosen[each] = rank
        load[each.layer, rank] += 1.0
        free[rank] -= 1
    return chosen


def _layer_without(placed: LayerPlan, left: Mapping[int, Sequence[int]]) -> LayerPlan:
    slots: list[tuple[int, ...]] = [()] * len(placed.slots)
    weights: list[tuple[float, ...]] = [()] * len(placed.slots)
    for ranks in left.values():
        total: defaultdict[int, float] = defaultdict(float)
        for rank in ranks:
            for expert, weight in zip(placed.slots[rank], placed.weights[rank], strict=True):
                total[expert] += weight
        for rank in ranks:
            slots[rank] = placed.slots[rank]
            held = zip(slots[rank], placed.weights[rank], strict=True)
            weights[rank] = tuple(weight / total[expert] for expert, weight in held)
    return LayerPlan(tuple(slots), tuple(weights))


def _replaced(
    rows: tuple[tuple[Value, ...], ...],
    others: tuple[tuple[Value, ...], ...],
    ranks: Collection[int],
) -> tuple[tuple[Value, ...], ...]:
    both = zip(rows, others, strict=True)
    return tuple(other if rank in ranks else row for rank, (row, other) in enumerate(both))


def _extended(
    rows: tuple[tuple[Value, ...], ...], rank: int, value: Value
) -> tuple[tuple[Value, ...], ...]:
    return (*rows[:rank], (*rows[rank], value), *rows[rank + 1 :])
