"""The plan in force, as far as a new one stays on its ranks; and what leaving it loads.

Shapes: M MoE layers, S slots of one layer on a worker's ranks.
"""

from collections.abc import Sequence

import numpy as np

from moe_placement.memory.rank_weights import expert_bytes
from moe_placement.model.spec import ModelSpec
from moe_placement.plan import Plan
from moe_placement.plan_diff import diff
from moe_placement.solver.problem import ExpertPlacement


def old_placement(old: Plan, ranks: tuple[int, ...]) -> ExpertPlacement | None:
    """What the ranks of one worker hold, if they are one of the old plan's EP groups; else None."""
    if set(ranks) not in [set(group) for group in old.ep_groups().values()]:
        return None
    return placement_on(old, ranks)


def placement_on(old: Plan, ranks: Sequence[int]) -> ExpertPlacement:
    """What some ranks of a plan hold."""
    layers = [old.layers[layer] for layer in sorted(old.layers)]
    held = [max(len(layer.slots[rank]) for layer in layers) for rank in ranks]
    rank_S = np.repeat(np.arange(len(ranks)), held)
    expert_LS = np.full((len(layers), len(rank_S)), -1)
    weight_LS = np.zeros((len(layers), len(rank_S)))
    first_N = np.cumsum(held) - held
    for row, layer in enumerate(layers):
        for rank, first in zip(ranks, first_N.tolist(), strict=True):
            last = first + len(layer.slots[rank])
            expert_LS[row, first:last] = layer.slots[rank]
            weight_LS[row, first:last] = layer.weights[rank]
    rank_LS = np.tile(rank_S, (len(layers), 1))
    return ExpertPlacement(expert_LS=expert_LS, rank_LS=rank_LS, weight_LS=weight_LS)


def loaded_bytes(spec: ModelSpec, old: Plan, new: Plan) -> int:
    """Bytes of experts that ranks must load to get from one plan to the other."""
    bytes_of_rank = {
        rank: expert_bytes(spec, pool.weight_format, pool.device)
        for pool in new.pools
        for rank in pool.ranks
    }
    return sum(bytes_of_rank[move.rank] for move in diff(old, new) if move.kind == "add")
