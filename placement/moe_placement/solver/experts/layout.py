"""A placement under construction: an expert and rows in each slot, slots in the order of ranks.

Shapes: L layers, E experts, N ranks, S slots of all ranks.
"""

from dataclasses import dataclass

import numpy as np

from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import ExpertPlacement, Floats, Ints

# A replica with a smaller share than this is not worth a slot; a plan's weights are above 0.
LEAST_SHARE = 1e-7


@dataclass(slots=True, eq=False)
class Layout:
    """Attributes:
    expert_LS: -1 where the slot is empty.
    rows_LS: rows that the replica takes of its expert.
    slots_N: slots of each rank; those of rank n begin at `starts[n]`.
    """

    expert_LS: Ints
    rows_LS: Floats
    slots_N: Ints

    @staticmethod
    def empty(num_layers: int, slots_N: Ints) -> "Layout":
        shape = (num_layers, int(slots_N.sum()))
        return Layout(np.full(shape, -1), np.zeros(shape), slots_N)

    @property
    def starts(self) -> Ints:
        """The first slot of each rank."""
        return np.cumsum(self.slots_N) - self.slots_N

    @property
    def ranks(self) -> Ints:
        """The rank of each slot."""
        return np.repeat(np.arange(len(self.slots_N)), self.slots_N)

    def rows_by_rank(self) -> Floats:
        return self.by_rank(self.rows_LS)

    def reads_by_rank(self) -> Floats:
        return self.by_rank(reads(self.rows_LS))

    def slowest(self, costs: RankCosts) -> Floats:
        """Seconds of the slowest rank in each layer."""
        seconds_L: Floats = costs.seconds(self.reads_by_rank(), self.rows_by_rank()).max(1)
        return seconds_L

    def by_rank(self, values_LS: Floats) -> Floats:
        """Sums over each rank's slots."""
        sums_LN = np.zeros((len(values_LS), len(self.slots_N)))
        has_slots_N = self.slots_N > 0
        if has_slots_N.any():
            starts = self.starts[has_slots_N]
            sums_LN[:, has_slots_N] = np.add.reduceat(values_LS, starts, axis=1)
        return sums_LN

    def take(self, layers: Ints) -> "Layout":
        """A copy of some layers."""
        return Layout(self.expert_LS[layers], self.rows_LS[layers], self.slots_N)

    def put(self, layers: Ints, other: "Layout") -> None:
        """Overwrite some layers."""
        self.expert_LS[layers] = other.expert_LS
        self.rows_LS[layers] = other.rows_LS

    def placement(self, num_experts: int, *, least_share: float = LEAST_SHARE) -> ExpertPlacement:
        """The same with weights; replicas with no larger share go, unless their expert has no
        rows at all."""
        layer_LS = np.arange(len(self.expert_LS))[:, None]
        total_LE = np.zeros((len(self.expert_LS), num_experts + 1))
        np.add.at(total_LE, (layer_LS, self.expert_LS), self.rows_LS)
        total_LS = np.take_along_axis(total_LE, self.expert_LS, axis=1)
        count_LE = np.zeros_like(total_LE)
        np.add.at(count_LE, (layer_LS, self.expert_LS), 1.0)
        equal_LS = 1.0 / np.take_along_axis(count_LE, self.expert_LS, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share_LS = np.where(total_LS > 0, self.rows_LS / total_LS, equal_LS)
        is_used_LS = (self.expert_LS >= 0) & (share_LS > least_share)
        weight_LS = np.where(is_used_LS, share_LS, 0.0)
        kept_LE = np.zeros_like(total_LE)
        np.add.at(kept_LE, (layer_LS, self.expert_LS), weight_LS)
        kept_LS = np.take_along_axis(kept_LE, self.expert_LS, axis=1)
        return ExpertPlacement(
            expert_LS=np.where(is_used_LS, self.expert_LS, -1),
            rank_LS=np.tile(self.ranks, (len(self.expert_LS), 1)),
            weight_LS=np.where(is_used_LS, weight_LS / np.where(kept_LS > 0, kept_LS, 1.0), 0.0),
        )
