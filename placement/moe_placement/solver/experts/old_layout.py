"""The placement in force, in the slots of today's ranks, mended where it no longer holds.

Shapes: L layers, E experts, N ranks, S slots of all ranks; X replicas of the old placement.
"""

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import ExpertPlacement, ExpertProblem, Floats, Ints


def holdings(old: ExpertPlacement, num_experts: int, num_ranks: int) -> NDArray[np.bool_]:
    """Which expert is on which of today's ranks (L x N x E)."""
    held_LNE = np.zeros((len(old.expert_LS), num_ranks, num_experts), np.bool_)
    used = (old.expert_LS >= 0) & (old.rank_LS < num_ranks)
    layer_X = np.nonzero(used)[0]
    held_LNE[layer_X, old.rank_LS[used], old.expert_LS[used]] = True
    return held_LNE


def moved_bytes(layout: Layout, held_LNE: NDArray[np.bool_], expert_bytes_N: Floats) -> Floats:
    """Bytes of replicas in each layer whose expert is not on their rank yet."""
    layer = np.arange(len(layout.expert_LS))[:, None]
    is_new_LS = (layout.expert_LS >= 0) & ~held_LNE[layer, layout.ranks, layout.expert_LS]
    moved_L: Floats = (is_new_LS * expert_bytes_N[layout.ranks]).sum(1)
    return moved_L


def old_layout(problem: ExpertProblem, costs: RankCosts, num_slots: int) -> Layout:
    """The old replicas that still have a rank and a slot; experts that have lost all theirs, or
    are new, go where they take the least time; extra replicas make room for them."""
    assert problem.old is not None
    layout = Layout.empty(len(problem.rows_LE), problem.slots_N)
    for layer in range(len(problem.rows_LE)):
        _keep(problem, layout, layer)
        _trim(layout, layer, num_slots)
        for expert in _missing(layout, layer, problem.rows_LE.shape[1]):
            _add(problem, costs, layout, layer, expert, num_slots)
    return layout


def _keep(problem: ExpertProblem, layout: Layout, layer: int) -> None:
    """Copy replicas, the largest first while a rank has slots; shares go by the old weights."""
    old = problem.old
    assert old is not None
    expert_S, rank_S, weight_S = old.expert_LS[layer], old.rank_LS[layer], old.weight_LS[layer]
    used_X = np.flatnonzero((expert_S >= 0) & (rank_S < len(problem.slots_N)))
    used_X = used_X[np.argsort(-weight_S[used_X], kind="stable")]
    filled_N = np.zeros(len(problem.slots_N), np.int64)
    start_N, total_E = layout.starts, np.zeros(problem.rows_LE.shape[1])
    for expert, rank, weight in zip(
        expert_S[used_X].tolist(), rank_S[used_X].tolist(), weight_S[used_X].tolist(), strict=True
    ):
        if filled_N[rank] < problem.slots_N[rank]:
            slot = start_N[rank] + filled_N[rank]
            layout.expert_LS[layer, slot], layout.rows_LS[layer, slot] = expert, weight
            filled_N[rank] += 1
            total_E[expert] += weight
    kept_S = layout.expert_LS[layer] >= 0
    of_S = layout.expert_LS[layer, kept_S]
    layout.rows_LS[layer, kept_S] *= problem.rows_LE[layer, of_S] / total_E[of_S]


def _trim(layout: Layout, layer: int, num_slots: int) -> None:
    """Drop the smallest extra replicas beyond the slots that may be used."""
    while (layout.expert_LS[layer] >= 0).sum() > num_slots and _drop_extra(layout, layer):
        pass


def _missing(layout: Layout, layer: int, num_experts: int) -> list[int]:
    return np.setdiff1d(np.arange(num_experts), layout.expert_LS[layer]).tolist()  # type: ignore[no-any-return]


def _drop_extra(layout: Layout, layer: int, rank: int | None = None) -> bool:
    """Empty the slot of the replica with the fewest rows of those whose expert has another; its
    rows go to the largest of these."""
    expert_S, rows_S = layout.expert_LS[layer], layout.rows_LS[layer]
    count_E = np.bincount(expert_S[expert_S >= 0])
    extra_X = np.flatnonzero((expert_S >= 0) & (count_E[expert_S] > 1))
    if not len(extra_X):
        return False
    slot = extra_X[rows_S[extra_X].argmin()]
    others_X = np.flatnonzero((expert_S == expert_S[slot]) & (np.arange(len(rows_S)) != slot))
    rows_S[others_X[rows_S[others_X].argmax()]] += rows_S[slot]
    expert_S[slot], rows_S[slot] = -1, 0.0
    return True


def _add(
    problem: ExpertProblem,
    costs: RankCosts,
    layout: Layout,
    layer: int,
    expert: int,
    num_slots: int,
) -> None:
    expert_S, rows = layout.expert_LS[layer], float(problem.rows_LE[layer, expert])
    while (expert_S >= 0).all() or (expert_S >= 0).sum() >= num_slots:
        dropped = _drop_extra(layout, layer)
        assert dropped
    one = layout.take(np.array([layer]))
    seconds_N = costs.seconds(
        one.reads_by_rank()[0] + reads(np.array(rows)), one.rows_by_rank()[0] + rows
    )
    free_X = np.flatnonzero(expert_S < 0)
    slot = free_X[seconds_N[layout.ranks[free_X]].argmin()]
    layout.expert_LS[layer, slot], layout.rows_LS[layer, slot] = expert, rows


def keeps_rules(problem: ExpertProblem, layout: Layout) -> NDArray[np.bool_]:
    """Layers in which replicas are spread over domains, and groups on one node, as is asked."""
    keeps_L = np.ones(len(layout.expert_LS), np.bool_)
    if problem.spread:
        keeps_L &= _places(problem, layout, problem.domain_N).min(1) >= 2
    if len(problem.group_E):
        keeps_L &= _places(problem, layout, problem.node_N, problem.group_E).max(1) <= 1
    return keeps_L


def _places(
    problem: ExpertProblem, layout: Layout, place_N: Ints, group_E: Ints | None = None
) -> Ints:
    """How many places (domains or nodes) each expert, or group of experts, is in."""
    num_experts = problem.rows_LE.shape[1]
    group_E = (
        np.arange(num_experts) if group_E is None else np.unique(group_E, return_inverse=True)[1]
    )
    places, place_N = np.unique(place_N, return_inverse=True)
    present = np.zeros((len(layout.expert_LS), group_E.max() + 2, len(places)), np.bool_)
    layer = np.arange(len(layout.expert_LS))[:, None]
    group_LS = np.append(group_E, group_E.max() + 1)[layout.expert_LS]
    present[layer, group_LS, place_N[layout.ranks]] = True
    count: Ints = present[:, :-1].sum(2)
    return count
