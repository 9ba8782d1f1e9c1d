"""Whether experts can be placed at all, and what is short where they cannot.

Shapes: E experts, N ranks, D failure domains, M nodes, G expert groups.
"""

from dataclasses import replace

import numpy as np

from moe_placement.solver.experts.spread import quotas
from moe_placement.solver.problem import ExpertProblem, Ints, PlacementImpossibleError


def most_slots(problem: ExpertProblem) -> int:
    """Slots that a layer may use."""
    return problem.num_slots or int(problem.slots_N.sum())


def even_slots(problem: ExpertProblem) -> ExpertProblem:
    """The same where every slot is to be used: ranks keep room in proportion to their slots."""
    slots_N = problem.slots_N
    num_slots = min(most_slots(problem), int(slots_N.sum()))
    room_N = quotas(slots_N.astype(np.float64), slots_N, num_slots)
    return replace(problem, slots_N=room_N, num_slots=0)


def check_possible(problem: ExpertProblem) -> None:
    """Raise PlacementImpossibleError, saying what is short and by how much; ValueError for loads
    that are no loads."""
    rows_LE = problem.rows_LE
    if rows_LE.ndim != 2 or not rows_LE.size:
        raise ValueError(f"rows_LE has shape {rows_LE.shape}; give layers x experts, 1 or more")
    if not np.all(np.isfinite(rows_LE)) or rows_LE.min() < 0:
        layer, expert = np.argwhere(~(np.isfinite(rows_LE) & (rows_LE >= 0)))[0].tolist()
        raise ValueError(f"layer {layer}, expert {expert} has {rows_LE[layer, expert]} rows")
    num_experts = rows_LE.shape[1]
    slots_N = np.minimum(problem.slots_N, num_experts)
    _check_slots(num_experts, int(slots_N.sum()), problem.num_slots, problem.slots_N)
    if problem.spread and problem.even:
        raise PlacementImpossibleError(
            "spread does not go with even: replicas that stand by need weights; leave out one"
        )
    if problem.spread:
        _check_spread(num_experts, slots_N, problem)
    if len(problem.group_E):
        _check_groups(slots_N, problem)


def _check_slots(num_experts: int, useful: int, num_slots: int, slots_N: Ints) -> None:
    if useful < num_experts:
        raise PlacementImpossibleError(
            f"{num_experts} experts need a slot each in every layer, {len(slots_N)} ranks have "
            f"{useful}: {num_experts - useful} short; add ranks, or slots by more memory or a "
            "smaller weight format"
        )
    if num_slots and num_slots < num_experts:
        raise PlacementImpossibleError(
            f"num_slots is {num_slots} for {num_experts} experts: {num_experts - num_slots} short"
        )
    if num_slots > slots_N.sum():
        raise PlacementImpossibleError(
            f"num_slots is {num_slots}, the ranks have {slots_N.sum()}: "
            f"{num_slots - slots_N.sum()} short"
        )


def _check_spread(num_experts: int, slots_N: Ints, problem: ExpertProblem) -> None:
    """Two domains each: a domain's slots count once for each expert at most (McNaughton)."""
    domains = np.unique(problem.domain_N[slots_N > 0])
    if len(domains) < 2:
        raise PlacementImpossibleError(
            f"spread needs 2 failure domains with slots, there are {len(domains)}: "
            f"{2 - len(domains)} short; without spread all replicas may share one"
        )
    in_domain_D = [slots_N[problem.domain_N == domain].sum() for domain in domains]
    useful = int(np.minimum(in_domain_D, num_experts).sum())
    useful = min(useful, problem.num_slots or useful)
    if useful < 2 * num_experts:
        raise PlacementImpossibleError(
            f"spread needs 2 slots in different failure domains for each of {num_experts} experts: "
            f"{2 * num_experts} in every layer, {useful} serve, {2 * num_experts - useful} short"
        )


def _check_groups(slots_N: Ints, problem: ExpertProblem) -> None:
    num_experts = problem.rows_LE.shape[1]
    if len(problem.group_E) != num_experts:
        raise ValueError(f"group_E names {len(problem.group_E)} experts of {num_experts}")
    size_G = np.unique(problem.group_E, return_counts=True)[1]
    room_M = [
        int(slots_N[problem.node_N == node].sum()) for node in np.unique(problem.node_N).tolist()
    ]
    if size_G.max() > max(room_M):
        raise PlacementImpossibleError(
            f"a group of {size_G.max()} experts must stay on one node, the largest node has "
            f"{max(room_M)} slots in each layer: {size_G.max() - max(room_M)} short"
        )
