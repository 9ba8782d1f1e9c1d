"""Like ranks renamed so that they keep as many as possible of the experts they hold.

Shapes: L layers, E experts, N ranks, S slots of all ranks; C ranks that may exchange names.
"""

import numpy as np
import scipy
from numpy.typing import NDArray

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import ExpertProblem, Ints

_MOST_RANKS = 512


def relabelled(
    problem: ExpertProblem, costs: RankCosts, layout: Layout, held_LNE: NDArray[np.bool_]
) -> Layout:
    """The same layout with the contents of like ranks exchanged, by maximum-weight matching."""
    renamed = layout.take(np.arange(len(layout.expert_LS)))
    for ranks in _alike(problem, costs):
        if not 1 < len(ranks) <= _MOST_RANKS:
            continue
        slot_CJ = layout.starts[ranks][:, None] + np.arange(problem.slots_N[ranks[0]])
        for layer in range(len(layout.expert_LS)):
            expert_CJ = layout.expert_LS[layer, slot_CJ]
            is_kept_CCJ = held_LNE[layer][ranks[:, None, None], expert_CJ] & (expert_CJ >= 0)
            to_C, from_C = scipy.optimize.linear_sum_assignment(is_kept_CCJ.sum(2), maximize=True)
            renamed.expert_LS[layer, slot_CJ[to_C]] = expert_CJ[from_C]
            renamed.rows_LS[layer, slot_CJ[to_C]] = layout.rows_LS[layer, slot_CJ[from_C]]
    return renamed


def _alike(problem: ExpertProblem, costs: RankCosts) -> list[Ints]:
    """Ranks between which neither cost nor any rule tells a difference."""
    none_N = np.zeros(len(problem.slots_N), np.int64)
    domain_N = problem.domain_N if problem.spread else none_N
    node_N = problem.node_N if len(problem.group_E) else none_N
    keys = np.stack([costs.kind_N, problem.slots_N, domain_N, node_N])
    of_N = np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1)
    groups = [np.flatnonzero(of_N == group) for group in range(of_N.max() + 1)]
    return [ranks for ranks in groups if problem.slots_N[ranks[0]] > 0]
