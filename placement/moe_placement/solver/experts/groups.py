"""Expert groups that stay on one node each: which node, by the work of their experts.

Shapes: L layers, E experts, N ranks, M nodes, G groups, P planes.
"""

from dataclasses import dataclass

import numpy as np

from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import ExpertProblem, Floats, Ints, PlacementImpossibleError

_MOST_MOVES = 200
_LEAST_GAIN = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class NodeCosts:
    """Nodes as one fast rank each, whose ranks share all work in proportion to their speed."""

    node_M: Ints
    fixed_PM: Floats
    per_read_PM: Floats
    per_row_PM: Floats
    slots_M: Ints

    @staticmethod
    def of(problem: ExpertProblem, costs: RankCosts) -> "NodeCosts":
        useful_N = problem.slots_N > 0
        node_M = np.unique(problem.node_N[useful_N])
        members = [useful_N & (problem.node_N == node) for node in node_M]
        with np.errstate(divide="ignore"):
            per_read, per_row = (
                np.stack([1.0 / (1.0 / plane_PN[:, m]).sum(1) for m in members], axis=1)
                for plane_PN in (costs.per_read_PN, costs.per_row_PN)
            )
        return NodeCosts(
            node_M,
            np.stack([costs.fixed_PN[:, m].max(1) for m in members], axis=1),
            per_read,
            per_row,
            np.array([problem.slots_N[m].sum() for m in members]),
        )

    def seconds(self, reads_LM: Floats, rows_LM: Floats) -> Floats:
        """Seconds of every node, for arrays that end in the axis of nodes."""
        planes = [
            fixed_M + per_read_M * reads_LM + per_row_M * rows_LM
            for fixed_M, per_read_M, per_row_M in zip(
                self.fixed_PM, self.per_read_PM, self.per_row_PM, strict=True
            )
        ]
        seconds_LM: Floats = np.max(planes, axis=0)
        return seconds_LM


def nodes_of_groups(problem: ExpertProblem, nodes: NodeCosts) -> Ints:
    """The index of each group's node in each layer (L x G), groups in the order of their numbers.

    The heaviest group first, to the node that then needs the least time and has the slots; then
    moves and swaps off the slowest node while they help.

    Raises:
        PlacementImpossibleError: the groups do not fit the nodes' slots this way.
    """
    group_E = np.unique(problem.group_E, return_inverse=True)[1]
    of_EG = (group_E[:, None] == np.arange(group_E.max() + 1)).astype(np.float64)
    work = _Work(
        nodes,
        reads(problem.rows_LE) @ of_EG,
        problem.rows_LE @ of_EG,
        of_EG.sum(0).astype(np.int64),
    )
    return np.stack([work.assign(layer) for layer in range(len(problem.rows_LE))])


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    nodes: NodeCosts
    reads_LG: Floats
    rows_LG: Floats
    size_G: Ints

    def assign(self, layer: int) -> Ints:
        """Nodes of one layer's groups."""
        node_G = self._heaviest_first(layer)
        for _ in range(_MOST_MOVES):
            better_G = self._better(layer, node_G)
            if better_G is None:
                break
            node_G = better_G
        return node_G

    def _seconds(self, layer: int, node_G: Ints) -> Floats:
        num_nodes = len(self.nodes.slots_M)
        placed_G = node_G >= 0
        reads_G, rows_G = self.reads_LG[layer, placed_G], self.rows_LG[layer, placed_G]
        reads_M = np.bincount(node_G[placed_G], reads_G, num_nodes).astype(np.float64)
        rows_M = np.bincount(node_G[placed_G], rows_G, num_nodes).astype(np.float64)
        return self.nodes.seconds(reads_M, rows_M)

    def _used(self, node_G: Ints) -> Ints:
        placed_G = node_G >= 0
        num_nodes = len(self.nodes.slots_M)
        used_M = np.bincount(node_G[placed_G], self.size_G[placed_G], num_nodes)
        return used_M.astype(np.int64)

    def _heaviest_first(self, layer: int) -> Ints:
        node_G = np.full(len(self.size_G), -1)
        key_G = (self.rows_LG[layer], self.reads_LG[layer], self.size_G)
        for group in np.lexsort(key_G)[::-1].tolist():
            fits_M = self._used(node_G) + self.size_G[group] <= self.nodes.slots_M
            if not fits_M.any():
                free = int((self.nodes.slots_M - self._used(node_G)).max())
                raise PlacementImpossibleError(
                    f"a group of {self.size_G[group]} experts finds at most {free} free slots on "
                    f"any node in each layer: {self.size_G[group] - free} short; give the nodes "
                    "more slots, or place without groups"
                )
            after_M = np.full(len(fits_M), np.inf)
            for node in np.flatnonzero(fits_M).tolist():
                node_G[group] = node
                after_M[node] = self._seconds(layer, node_G)[node]
            node_G[group] = after_M.argmin()
        return node_G

    def _better(self, layer: int, node_G: Ints) -> Ints | None:
        """The best assignment one move or swap away from the slowest node; None where none is
        faster."""
        seconds_M = self._seconds(layer, node_G)
        worst = int(seconds_M.argmax())
        best, best_G = seconds_M[worst] * (1 - _LEAST_GAIN), None
        for group in np.flatnonzero(node_G == worst).tolist():
            for other_G in self._neighbours(node_G, group):
                after_M = self._seconds(layer, other_G)
                touched = after_M[[worst, other_G[group]]].max()
                if touched < best:
                    best, best_G = touched, other_G
        return best_G

    def _neighbours(self, node_G: Ints, group: int) -> list[Ints]:
        """Assignments with the group on another node, alone or for another group."""
        found = []
        for node in np.flatnonzero(np.arange(len(self.nodes.slots_M)) != node_G[group]).tolist():
            moved_G = node_G.copy()
            moved_G[group] = node
            found.append(moved_G)
        for other in np.flatnonzero(node_G != node_G[group]).tolist():
            swapped_G = node_G.copy()
            swapped_G[[group, other]] = node_G[[other, group]]
            found.append(swapped_G)
        return [each for each in found if np.all(self._used(each) <= self.nodes.slots_M)]
