"""A layout under search, with the sums by rank that its cost is made of.

Shapes: L layers, N ranks; X some layers, M some ranks of each, J slots of a rank.
"""

from dataclasses import dataclass

import numpy as np

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What some slots hold; arrays of one shape that ends in the axis of a rank's slots.

    Attributes:
        expert: -1 where the slot is empty, -2 where the rank has no such slot.
    """

    slot: Ints
    expert: Ints
    rows: Floats

    def take(self, places: Ints) -> "Held":
        """Some slots of each rank."""
        return Held(
            np.take_along_axis(self.slot, places, axis=-1),
            np.take_along_axis(self.expert, places, axis=-1),
            np.take_along_axis(self.rows, places, axis=-1),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """Attributes:
    layout: changed in place, as are the sums.
    used_L: slots in use.
    """

    costs: RankCosts
    layout: Layout
    reads_LN: Floats
    rows_LN: Floats
    seconds_LN: Floats
    used_L: Ints

    @staticmethod
    def of(costs: RankCosts, layout: Layout) -> "Loads":
        reads_LN, rows_LN = layout.reads_by_rank(), layout.rows_by_rank()
        seconds_LN = costs.seconds(reads_LN, rows_LN)
        used_L = (layout.expert_LS >= 0).sum(1)
        return Loads(costs, layout, reads_LN, rows_LN, seconds_LN, used_L)

    def held(self, layer_X: Ints, rank_X: Ints) -> Held:
        """What the slots of ranks hold; layers and ranks broadcast, and a last axis is added."""
        slots_N, starts_N = self.layout.slots_N, self.layout.starts
        offset_J = np.arange(int(slots_N.max()))
        exists = offset_J < slots_N[rank_X][..., None]
        slot = np.where(exists, starts_N[rank_X][..., None] + offset_J, 0)
        layer = layer_X[..., None]
        expert = np.where(exists, self.layout.expert_LS[layer, slot], -2)
        return Held(slot, expert, np.where(exists, self.layout.rows_LS[layer, slot], 0.0))

    def refresh(self, layer_X: Ints, rank_XM: Ints) -> None:
        """Sum up some ranks anew, after their slots have changed."""
        layer_X1 = layer_X[:, None]
        rows_XMJ = self.held(layer_X1, rank_XM).rows
        self.reads_LN[layer_X1, rank_XM] = reads_XM = reads(rows_XMJ).sum(2)
        self.rows_LN[layer_X1, rank_XM] = rows_XM = rows_XMJ.sum(2)
        self.seconds_LN[layer_X1, rank_XM] = self.costs.seconds_at(rank_XM, reads_XM, rows_XM)
