"""A seed for like ranks with few spare slots: clusters of ranks, wrapped around one by one.

A cluster of g ranks needs g - 1 further replicas to share its experts evenly, so spare slots say
how many clusters there must be, and clusters are packed whole, like machines g times as fast.
Shapes: E experts of one layer, C clusters, N ranks, T trials.
"""

from collections.abc import Iterator

import numpy as np

from moe_placement.solver.experts.fluid_program import Kinds, solve_fluid
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.local_search import Search
from moe_placement.solver.experts.longest_first import longest_first
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.experts.wrap_around import wrap_around
from moe_placement.solver.problem import Floats, Ints

_TRIALS = 12
_FEWER_TRIALS = 3
_FEW_RANKS = 16
_PACKINGS = 64
_NOISE = 0.3


def clustered(
    costs: RankCosts,
    slots_N: Ints,
    num_slots: int,
    rows_E: Floats,
    goal: float,
    num_moves: int,
    rng: np.random.Generator,
) -> Layout:
    """Place one layer's experts on ranks of one kind.

    Args:
        goal: seconds at which the layer is good enough.
        num_moves: most moves of local search for each choice of clusters.
    """
    spare = min(num_slots - len(rows_E), len(slots_N) - 1)
    best, best_seconds = Layout.empty(1, slots_N), np.inf
    for sizes_C in _sizes(rows_E, goal, costs, len(slots_N) - spare, rng):
        layout = _on_clusters(costs, slots_N, num_slots, rows_E, sizes_C, goal, num_moves, rng)
        seconds = float(layout.slowest(costs).max())
        if seconds < best_seconds:
            best, best_seconds = layout, seconds
        if best_seconds <= goal:
            break
    return best


def _sizes(
    rows_E: Floats, goal: float, costs: RankCosts, num_clusters: int, rng: np.random.Generator
) -> Iterator[Ints]:
    """Ranks of each cluster, in a few ways: a cluster for each of the hottest experts, just large
    enough, and the rest dealt out evenly or at random; or all at random."""
    num_ranks = costs.fixed_PN.shape[1]
    alone_E = costs.seconds(reads(rows_E)[:, None], rows_E[:, None]).max(1)
    alone_C = np.sort(alone_E)[::-1][:num_clusters]
    least_C = np.ones(num_clusters, np.int64)
    least_C[: len(alone_C)] = np.clip(np.ceil(alone_C / goal - 1e-9), 1, num_ranks)
    while least_C.sum() > num_ranks:
        least_C[least_C.argmax()] -= 1
    seen: set[tuple[int, ...]] = set()
    for trial in range(_TRIALS if num_ranks <= _FEW_RANKS else _FEWER_TRIALS):
        sizes_C = least_C.copy() if trial % 2 == 0 else np.ones_like(least_C)
        for _ in range(num_ranks - int(sizes_C.sum())):
            sizes_C[sizes_C.argmin() if trial == 0 else rng.integers(num_clusters)] += 1
        if (key := tuple(sorted(sizes_C.tolist()))) not in seen:
            seen.add(key)
            yield sizes_C


def _on_clusters(
    costs: RankCosts,
    slots_N: Ints,
    num_slots: int,
    rows_E: Floats,
    sizes_C: Ints,
    goal: float,
    num_moves: int,
    rng: np.random.Generator,
) -> Layout:
    start_C = np.cumsum(sizes_C) - sizes_C
    packed = _packed(
        costs.shared(sizes_C),
        np.add.reduceat(slots_N, start_C) - (sizes_C - 1),
        rows_E,
        goal,
        num_moves,
        rng,
    )
    limit = float(packed.slowest(costs.shared(sizes_C))[0])
    layout = Layout.empty(1, slots_N)
    for cluster, (start, size) in enumerate(zip(start_C.tolist(), sizes_C.tolist(), strict=True)):
        expert_C = packed.expert_LS[0, packed.ranks == cluster]
        expert_C = expert_C[expert_C >= 0]
        ranks = np.arange(start, start + size)
        part = _wrapped(costs.take(ranks), slots_N[ranks], rows_E[expert_C], limit)
        slots = (layout.ranks >= start) & (layout.ranks < start + size)
        layout.expert_LS[0, slots] = np.append(expert_C, -1)[part.expert_LS[0]]
        layout.rows_LS[0, slots] = part.rows_LS[0]
    return layout


def _packed(
    costs: RankCosts,
    slots_C: Ints,
    rows_E: Floats,
    goal: float,
    num_moves: int,
    rng: np.random.Generator,
) -> Layout:
    """Whole experts on clusters: the best of several packings, of rows more or less true."""
    num_experts = len(rows_E)
    noise_TE = rng.lognormal(0.0, _NOISE, (_PACKINGS, num_experts))
    noise_TE[0] = 1.0
    packed = longest_first(costs, slots_C, num_experts, rows_E * noise_TE)
    packed.rows_LS[:] = np.append(rows_E, 0.0)[packed.expert_LS]
    goal_T = np.full(_PACKINGS, goal)
    search = Search(num_slots=num_experts, goal_L=goal_T, num_moves=num_moves)
    search.improve(costs, packed, rng)
    fastest = packed.slowest(costs).argmin()
    return packed.take(np.array([fastest]))


def _wrapped(costs: RankCosts, slots_N: Ints, rows_E: Floats, limit: float) -> Layout:
    sorted_1E = np.sort(rows_E)[None]
    slots_11 = np.array([[slots_N.sum()]])
    fluid = solve_fluid(Kinds.of(costs), sorted_1E, reads(sorted_1E)[:, :, None], slots_11)
    limit_1 = np.array([limit])
    return wrap_around(
        costs, slots_N, int(slots_N.sum()), rows_E[None], fluid, limit_1, splits=True
    )
