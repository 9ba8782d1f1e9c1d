"""Seeds in which every expert has replicas in two failure domains.

Shapes: L layers, E experts, N ranks, D failure domains, S slots of all ranks.
"""

import numpy as np
import scipy
from numpy.typing import NDArray

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import Floats, Ints

# Of an expert's rows, for a replica that stands by: enough to keep a weight, hardly ever read.
STAND_BY_SHARE = 1e-4


def spread_pairs(
    costs: RankCosts, slots_N: Ints, domain_N: Ints, rows_LE: Floats, *, stand_by: bool
) -> Layout:
    """Two replicas of every expert, in different domains, that share evenly or one stands by.

    The slots are listed domain by domain, at most E of a domain, 2E in all; expert number i has
    places i and i + E, which are never in one domain (McNaughton's wrap-around rule). Within a
    domain places go round its ranks, and experts are numbered from hot to cold, so that each rank
    gets some of each.
    """
    num_experts = rows_LE.shape[1]
    slot_P = _places(slots_N, domain_N, _speed(costs, rows_LE), num_experts)
    layout = Layout.empty(len(rows_LE), slots_N)
    hot_first_LE = np.argsort(-rows_LE, axis=1, kind="stable")
    rows = np.take_along_axis(rows_LE, hot_first_LE, axis=1)
    layout.expert_LS[:, slot_P] = np.tile(hot_first_LE, (1, 2))
    turn_E = np.arange(num_experts) % 2
    low, high = (STAND_BY_SHARE, 1 - STAND_BY_SHARE) if stand_by else (0.5, 0.5)
    first_E = np.where(turn_E == 0, high, low)
    layout.rows_LS[:, slot_P] = np.concatenate([rows * first_E, rows * (1 - first_E)], axis=1)
    return layout


def add_stand_bys(
    layout: Layout, domain_N: Ints, rows_LE: Floats, num_slots: int
) -> NDArray[np.bool_]:
    """Give experts that are in one domain only a replica that stands by in another, in place.

    Free slots are matched to experts; in layers where they do not serve all, nothing is added.

    Returns:
        the layers in which every expert now is in two domains.
    """
    domain_S = domain_N[layout.ranks]
    return np.array(
        [_add_in_layer(layout, domain_S, rows_LE, num_slots, i) for i in range(len(rows_LE))]
    )


def _add_in_layer(
    layout: Layout, domain_S: Ints, rows_LE: Floats, num_slots: int, layer: int
) -> bool:
    expert_S = layout.expert_LS[layer]
    used, free = np.flatnonzero(expert_S >= 0), np.flatnonzero(expert_S < 0)
    lowest_E = np.full(rows_LE.shape[1], domain_S.max())
    highest_E = np.full(rows_LE.shape[1], -1)
    np.minimum.at(lowest_E, expert_S[used], domain_S[used])
    np.maximum.at(highest_E, expert_S[used], domain_S[used])
    lonely = np.flatnonzero(lowest_E == highest_E)
    if len(lonely) > min(len(free), num_slots - len(used)):
        return False
    is_same = lowest_E[lonely][:, None] == domain_S[free]
    chosen, slot = scipy.optimize.linear_sum_assignment(is_same)
    if is_same[chosen, slot].any():
        return False
    layout.expert_LS[layer, free[slot]] = lonely[chosen]
    return True


def keep_standing_by(layout: Layout, rows_LE: Floats) -> None:
    """Raise every replica to the least share, at the cost of the expert's largest replica."""
    layer = np.arange(len(rows_LE))[:, None]
    padded_LE = np.append(rows_LE, np.zeros((len(rows_LE), 1)), axis=1)
    least_LS = STAND_BY_SHARE * padded_LE[layer, layout.expert_LS]
    short_LS = np.maximum(least_LS - layout.rows_LS, 0.0)
    layout.rows_LS += short_LS
    total_LE = np.zeros_like(padded_LE)
    np.add.at(total_LE, (layer, layout.expert_LS), layout.rows_LS)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale_LE = np.where(total_LE > 0, padded_LE / total_LE, 0.0)
    layout.rows_LS *= scale_LE[layer, layout.expert_LS]


def _speed(costs: RankCosts, rows_LE: Floats) -> Floats:
    """How much of the mean layer's work a rank does in a second, if it had only that to do."""
    rows = rows_LE.sum(1).mean() / len(costs.kind_N)
    experts = rows_LE.shape[1] / len(costs.kind_N)
    seconds_N = costs.seconds(np.full(len(costs.kind_N), experts), np.full(len(costs.kind_N), rows))
    return 1.0 / np.maximum(seconds_N, 1e-30)


def _places(slots_N: Ints, domain_N: Ints, speed_N: Floats, num_experts: int) -> Ints:
    """2E slots domain by domain, as many of a domain as it is fast, at most E."""
    domains = np.unique(domain_N[slots_N > 0])
    room_D = [int(min(slots_N[domain_N == d].sum(), num_experts)) for d in domains]
    speed_D = [speed_N[(domain_N == d) & (slots_N > 0)].sum() for d in domains]
    count_D = quotas(np.array(speed_D), np.array(room_D), 2 * num_experts)
    start_N = np.cumsum(slots_N) - slots_N
    places: list[int] = []
    for domain, count in zip(domains.tolist(), count_D.tolist(), strict=True):
        ranks = np.flatnonzero(domain_N == domain)
        count_n = quotas(speed_N[ranks], slots_N[ranks], count)
        turns = [
            (turn, rank) for rank, num in zip(ranks, count_n, strict=True) for turn in range(num)
        ]
        places += [int(start_N[rank] + turn) for turn, rank in sorted(turns)]
    return np.array(places)


def quotas(weight_D: Floats, room_D: Ints, total: int) -> Ints:
    """Whole numbers that sum to the total, in proportion to weights, within room."""
    quota_D = np.zeros(len(room_D), np.int64)
    while quota_D.sum() < total:
        is_open_D = quota_D < room_D
        open_weight_D = np.where(is_open_D, np.maximum(weight_D, 1e-30), 0.0)
        step_D = open_weight_D / open_weight_D.sum() * (total - quota_D.sum())
        whole_D = np.minimum(np.floor(step_D).astype(np.int64), room_D - quota_D)
        if not whole_D.any():
            whole_D[np.where(is_open_D, step_D, -1.0).argmax()] = 1
        quota_D += whole_D
    return quota_D
