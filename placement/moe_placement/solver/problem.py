"""One question to the expert solver, and its answer, as arrays.

Shapes: L MoE layers, E experts, N ranks, S slots of all ranks in one layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moe_placement.hardware.device import ExpertCurve
from moe_placement.plan import LayerPlan

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class PlacementImpossibleError(ValueError):
    """Experts that cannot be placed: what is short, and by how much."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertPlacement:
    """Which expert is in which slot.

    Attributes:
        expert_LS: the expert of each slot, -1 where the slot stays empty.
        rank_LS: the rank of each slot.
        weight_LS: the share of its expert's rows that this replica takes; 0 in an empty slot.
    """

    expert_LS: Ints
    rank_LS: Ints
    weight_LS: Floats

    def layer_plans(self, layers: Sequence[int], num_ranks: int) -> dict[int, LayerPlan]:
        """The same as the Plan has it, under the model's own layer numbers."""
        return {
            layer: _layer_plan(
                self.expert_LS[row], self.rank_LS[row], self.weight_LS[row], num_ranks
            )
            for row, layer in enumerate(layers)
        }


def _layer_plan(expert_S: Ints, rank_S: Ints, weight_S: Floats, num_ranks: int) -> LayerPlan:
    slots: list[list[int]] = [[] for _ in range(num_ranks)]
    weights: list[list[float]] = [[] for _ in range(num_ranks)]
    for expert, rank, weight in zip(
        expert_S.tolist(), rank_S.tolist(), weight_S.tolist(), strict=True
    ):
        if expert >= 0:
            slots[rank].append(expert)
            weights[rank].append(weight)
    return LayerPlan(tuple(map(tuple, slots)), tuple(map(tuple, weights)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertProblem:
    """Experts to place on the ranks of one EP group.

    Attributes:
        rows_LE: rows (token, expert) that one step sends to each expert, in the mean.
        flops_per_row: FLOPs of one row through one expert.
        expert_bytes_N: bytes of one expert in each rank's weight format.
        slots_N: slots that each rank has room for in every layer.
        curves: distinct cost curves.
        curve_N: which of them each rank has.
        row_seconds_N: seconds that the link adds for each row that a rank receives.
        num_slots: slots to use in each layer; 0 is all that there are.
        node_N: the node of each rank; all 0 where it does not matter.
        domain_N: the failure domain of each rank.
        spread: no single domain may hold all replicas of an expert.
        group_E: expert groups that stay on one node each; empty is none.
        old: the placement in force, where there is one.
        move_bytes: most bytes of experts that may be loaded to leave `old`; None is no limit.
        even: replicas of an expert share its rows evenly, as engines without weights route them,
            and every slot is used.
    """

    rows_LE: Floats
    flops_per_row: float
    expert_bytes_N: Floats
    slots_N: Ints
    curves: tuple[ExpertCurve, ...]
    curve_N: Ints
    row_seconds_N: Floats
    num_slots: int = 0
    node_N: Ints
    domain_N: Ints
    spread: bool = False
    group_E: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    old: ExpertPlacement | None = None
    move_bytes: float | None = None
    even: bool = False
