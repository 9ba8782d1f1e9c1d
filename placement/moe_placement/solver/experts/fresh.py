"""A placement from nothing, under whichever side rules the problem has.

Shapes: L layers, E experts, N ranks, M nodes, G groups.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.bound import LayerBounds, lower_bounds
from moe_placement.solver.experts.even import even_layout
from moe_placement.solver.experts.groups import NodeCosts, nodes_of_groups
from moe_placement.solver.experts.idle_replicas import drop_idle_replicas
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.local_search import Search
from moe_placement.solver.experts.pack import Packer
from moe_placement.solver.experts.possible import most_slots
from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.experts.split_weights import split_weights
from moe_placement.solver.experts.spread import add_stand_bys, keep_standing_by, spread_pairs
from moe_placement.solver.problem import ExpertProblem, Ints

_NUM_MOVES = 300
_NONE = np.empty(0, np.int64)


def fresh_layout(
    problem: ExpertProblem, costs: RankCosts, bounds: LayerBounds, rng: np.random.Generator
) -> Layout:
    """Place all experts, whatever is in force now.

    Raises:
        PlacementImpossibleError: groups that find no node with room.
    """
    if len(problem.group_E):
        return _grouped(problem, costs, rng)
    if problem.even:
        return even_layout(costs, problem.slots_N, problem.rows_LE, bounds.seconds_L, rng)
    if problem.spread:
        return _spread(problem, costs, bounds, rng)
    layout = Packer(problem, costs, bounds, most_slots(problem), _NUM_MOVES).pack(rng)
    if costs.per_read_PN.any():
        drop_idle_replicas(costs, layout, problem.rows_LE.shape[1], layout.slowest(costs))
    return layout


def _spread(
    problem: ExpertProblem, costs: RankCosts, bounds: LayerBounds, rng: np.random.Generator
) -> Layout:
    """The fastest of pairs that share evenly, pairs of which one stands by, and a placement
    without the rule on half the slots with stand-bys on the rest."""
    search = Search(
        num_slots=most_slots(problem),
        goal_L=bounds.seconds_L,
        num_moves=_NUM_MOVES,
        domain_N=problem.domain_N,
    )
    layers, best = np.arange(len(problem.rows_LE)), None
    for layout, may_L in _spread_seeds(problem, costs, bounds, rng):
        split_weights(costs, layout, layers[may_L])
        keep_standing_by(layout, problem.rows_LE)
        search.improve(costs, layout, rng)
        keep_standing_by(layout, problem.rows_LE)
        if best is None:
            best = layout
        is_faster_L = may_L & (layout.slowest(costs) < best.slowest(costs))
        best.put(layers[is_faster_L], layout.take(layers[is_faster_L]))
    assert best is not None
    return best


def _spread_seeds(
    problem: ExpertProblem, costs: RankCosts, bounds: LayerBounds, rng: np.random.Generator
) -> Iterator[tuple[Layout, NDArray[np.bool_]]]:
    """Layouts, and the layers in which they are in two domains; all layers, of the first two."""
    all_L = np.ones(len(problem.rows_LE), np.bool_)
    where = (costs, problem.slots_N, problem.domain_N, problem.rows_LE)
    yield spread_pairs(*where, stand_by=False), all_L
    if costs.per_read_PN.any():
        yield spread_pairs(*where, stand_by=True), all_L
    half = replace(
        problem,
        slots_N=(problem.slots_N + 1) // 2,
        num_slots=min(
            most_slots(problem) - problem.rows_LE.shape[1], int(((problem.slots_N + 1) // 2).sum())
        ),
        spread=False,
    )
    if half.num_slots >= problem.rows_LE.shape[1]:
        layout = Layout.empty(len(problem.rows_LE), problem.slots_N)
        placed = fresh_layout(half, costs, bounds, rng)
        slots = _first_slots(layout, half.slots_N)
        layout.expert_LS[:, slots], layout.rows_LS[:, slots] = placed.expert_LS, placed.rows_LS
        may_L = add_stand_bys(layout, problem.domain_N, problem.rows_LE, most_slots(problem))
        yield layout, may_L


def _first_slots(layout: Layout, count_N: Ints) -> Ints:
    """So many of each rank's slots."""
    place_S = np.arange(layout.expert_LS.shape[1]) - layout.starts[layout.ranks]
    return np.flatnonzero(place_S < count_N[layout.ranks])


def _grouped(problem: ExpertProblem, costs: RankCosts, rng: np.random.Generator) -> Layout:
    """Groups to nodes, then each node's experts on its ranks, like layers together."""
    layout = Layout.empty(len(problem.rows_LE), problem.slots_N)
    nodes = NodeCosts.of(problem, costs)
    group_E = np.unique(problem.group_E, return_inverse=True)[1]
    node_LE = nodes_of_groups(problem, nodes)[:, group_E]
    spare = most_slots(problem) - problem.rows_LE.shape[1]
    for node in range(len(nodes.node_M)):
        ranks = np.flatnonzero((problem.node_N == nodes.node_M[node]) & (problem.slots_N > 0))
        count_L = (node_LE == node).sum(1)
        for count in np.unique(count_L[count_L > 0]).tolist():
            layers = np.flatnonzero(count_L == count)
            expert_XE = np.nonzero(node_LE[layers] == node)[1].reshape(len(layers), count)
            room = int(np.minimum(problem.slots_N[ranks], count).sum())
            share = room if problem.even else spare * room // int(problem.slots_N.sum())
            _solve_node(
                problem, costs, layout, layers, ranks, expert_XE, min(room, count + share), rng
            )
    return layout


def _solve_node(
    problem: ExpertProblem,
    costs: RankCosts,
    layout: Layout,
    layers: Ints,
    ranks: Ints,
    expert_XE: Ints,
    num_slots: int,
    rng: np.random.Generator,
) -> None:
    part = replace(
        problem,
        rows_LE=np.take_along_axis(problem.rows_LE[layers], expert_XE, axis=1),
        expert_bytes_N=problem.expert_bytes_N[ranks],
        slots_N=np.minimum(problem.slots_N[ranks], expert_XE.shape[1]),
        curve_N=problem.curve_N[ranks],
        row_seconds_N=problem.row_seconds_N[ranks],
        node_N=problem.node_N[ranks],
        domain_N=problem.domain_N[ranks],
        num_slots=num_slots,
        group_E=_NONE,
        old=None,
    )
    part_costs = costs.take(ranks)
    placed = fresh_layout(part, part_costs, lower_bounds(part, part_costs), rng)
    room_N = np.zeros_like(problem.slots_N)
    room_N[ranks] = part.slots_N
    slots = _first_slots(layout, room_N)
    padded_XE = np.append(expert_XE, np.full((len(layers), 1), -1), axis=1)
    layout.expert_LS[np.ix_(layers, slots)] = np.take_along_axis(
        padded_XE, placed.expert_LS, axis=1
    )
    layout.rows_LS[np.ix_(layers, slots)] = placed.rows_LS
