"""What a placement takes by the mean rows of its problem.

Shapes: L MoE layers, N ranks, S slots of a layer.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats, Ints


def predicted_seconds(placement: ExpertPlacement, problem: ExpertProblem) -> Floats:
    """Seconds of the slowest rank in each layer, (L,), by the problem's own mean rows."""
    num_layers, num_ranks = len(problem.rows_LE), len(problem.slots_N)
    expert_LS = np.maximum(placement.expert_LS, 0)
    rows_LS = np.take_along_axis(problem.rows_LE, expert_LS, axis=1) * placement.weight_LS
    place_LS = placement.rank_LS + np.arange(num_layers)[:, None] * num_ranks
    rows_LN = sum_by_rank(place_LS, rows_LS, num_layers, num_ranks)
    reads_LN = sum_by_rank(place_LS, reads(rows_LS), num_layers, num_ranks)
    seconds_L: Floats = RankCosts.of(problem).seconds(reads_LN, rows_LN).max(axis=1)
    return seconds_L


def sum_by_rank(place_S: Ints, values_S: NDArray[Any], num_layers: int, num_ranks: int) -> Floats:
    """The sum over the slots of each rank in each layer.

    Args:
        place_S: layer * N + rank of each slot of all layers.
    """
    num_places = num_layers * num_ranks
    sums = np.bincount(place_S.ravel(), weights=values_S.ravel(), minlength=num_places)
    return sums.astype(np.float64).reshape(num_layers, num_ranks)
