"""The true time of a placement, under rows that were drawn after it was made.

Shapes: L MoE layers, E experts, N ranks, S slots of a layer, X experts of all layers that have
several replicas, R most replicas of one.
"""

from dataclasses import dataclass

import numpy as np

from moe_placement.load.sampling import split_rows
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.predicted import sum_by_rank
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats, Ints


@dataclass(frozen=True, slots=True)
class StepScore:
    """Attributes:
    seconds: of the slowest rank, added over the layers, since all ranks wait in each.
    imbalance: the fullest rank's rows over the mean rank's, in the mean over layers; a layer
        without rows counts as even.
    """

    seconds: float
    imbalance: float


@dataclass(frozen=True, slots=True, eq=False)
class Deal:
    """How rows of experts become rows of slots.

    Attributes:
        sole_LE: the slot, counted over all layers, of an expert that has one alone; -1 otherwise.
        many_X: the expert, counted over all layers, of those with several replicas.
        slot_XR: their slots, counted over all layers.
        weight_XR: the replicas' shares; 0 where there are fewer.
        place_S: layer * N + rank of each slot of all layers.
    """

    sole_LE: Ints
    many_X: Ints
    slot_XR: Ints
    weight_XR: Floats
    place_S: Ints

    @staticmethod
    def of(placement: ExpertPlacement, num_experts: int, num_ranks: int) -> "Deal":
        num_layers, num_slots = placement.expert_LS.shape
        layer_S = np.repeat(np.arange(num_layers), num_slots)
        slots = np.flatnonzero(placement.expert_LS.ravel() >= 0)
        expert_Y = layer_S[slots] * num_experts + placement.expert_LS.ravel()[slots]
        order_Y = np.argsort(expert_Y, kind="stable")
        slots, expert_Y = slots[order_Y], expert_Y[order_Y]
        count_LE = np.bincount(expert_Y, minlength=num_layers * num_experts)
        first_LE = np.cumsum(count_LE) - count_LE
        sole_LE = np.where(count_LE == 1, slots[np.minimum(first_LE, len(slots) - 1)], -1)
        many_X = np.flatnonzero(count_LE > 1)
        replica_R = np.arange(count_LE.max(initial=1))
        is_there_XR = replica_R < count_LE[many_X, None]
        slot_XR = slots[np.where(is_there_XR, first_LE[many_X, None] + replica_R, 0)]
        weight_XR = np.where(is_there_XR, placement.weight_LS.ravel()[slot_XR], 0.0)
        place_S = layer_S * num_ranks + placement.rank_LS.ravel()
        return Deal(sole_LE, many_X, slot_XR, weight_XR, place_S)

    def rows_of_slots(self, rng: np.random.Generator, rows_LE: Ints) -> Ints:
        """Rows of each slot of all layers, each row dealt to one replica."""
        rows_S = np.zeros(len(self.place_S), np.int64)
        flat_LE, is_sole_LE = rows_LE.ravel(), self.sole_LE >= 0
        rows_S[self.sole_LE[is_sole_LE]] = flat_LE[is_sole_LE]
        split_XR = split_rows(rng, flat_LE[self.many_X], self.weight_XR)
        np.add.at(rows_S, self.slot_XR, split_XR)
        return rows_S


class Scorer:
    """Scores one placement, step by step."""

    def __init__(self, placement: ExpertPlacement, problem: ExpertProblem, seed: int) -> None:
        self._num_layers, num_experts = problem.rows_LE.shape
        self._num_ranks = len(problem.slots_N)
        self._deal = Deal.of(placement, num_experts, self._num_ranks)
        self._costs = RankCosts.of(problem)
        self._rng = np.random.default_rng(seed)

    def score(self, rows_LE: Ints) -> StepScore:
        """One step with these rows; a replica's weights are read where it has at least one."""
        rows_S = self._deal.rows_of_slots(self._rng, rows_LE)
        place_S, shape = self._deal.place_S, (self._num_layers, self._num_ranks)
        rows_LN = sum_by_rank(place_S, rows_S, *shape)
        seconds_LN = self._costs.seconds(sum_by_rank(place_S, rows_S > 0, *shape), rows_LN)
        mean_L = rows_LN.mean(axis=1)
        imbalance_L = np.divide(rows_LN.max(axis=1), mean_L, np.ones_like(mean_L), where=mean_L > 0)
        return StepScore(
            seconds=float(seconds_LN.max(axis=1).sum()), imbalance=float(imbalance_L.mean())
        )
