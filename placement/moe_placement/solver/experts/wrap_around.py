"""Wrap-around packing: fill rank after rank to a time limit, split the expert that overhangs.

McNaughton's rule for preemptive machines, with the next expert picked by the room left per slot.
Shapes: L layers, E experts, N ranks, K kinds of ranks; X some layers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.fluid_program import FluidSolution
from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.packing import Packing
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints

_ROUNDING = 1e-12
_LEAST_PART = 1e-3
_AIM = 0.997
_NEARLY_AS_CHEAP = 1.01


def wrap_around(
    costs: RankCosts,
    slots_N: Ints,
    num_slots: int,
    rows_LE: Floats,
    fluid: FluidSolution,
    limit_L: Floats,
    *,
    splits: bool,
) -> Layout:
    """Place every expert; ranks keep within the limit where slots allow.

    Kinds of ranks are filled one after the other, the kind for the hottest experts first, each
    from the experts that are cheapest there by the prices of the fluid program. A rank takes
    whole experts of about the room that it has left per slot, so that cold ones share ranks with
    hot ones.

    Args:
        num_slots: most slots used in a layer.
        fluid: how many rows and experts a rank of each kind should have, and prices.
        limit_L: seconds to fill each rank to.
        splits: a part of the hottest expert fills each rank up. If not, only experts too large
            for any rank are split, which spares the reads of further replicas.
    """
    packing = Packing(costs, slots_N, num_slots, rows_LE)
    most_L = np.zeros(len(limit_L)) if splits else _largest_room(costs, limit_L)
    num_ranks_K = np.bincount(costs.kind_N)
    kinds = np.argsort(-(fluid.rows_LK / np.maximum(fluid.experts_LK, 1e-9)).mean(0)).tolist()
    for turn, kind in enumerate(kinds):
        cheap_LE = _cheap(fluid, rows_LE, kind, kinds[turn:])
        for done, rank in enumerate(np.flatnonzero(costs.kind_N == kind).tolist()):
            left_K = (
                num_ranks_K[kinds[turn:]] - np.eye(1, len(kinds) - turn, dtype=np.int64)[0] * done
            )
            experts_L = _share(fluid.experts_LK[:, kinds[turn:]], left_K, packing.waits_LE.sum(1))
            rows_L = _share(fluid.rows_LK[:, kinds[turn:]], left_K, packing.left_LE.sum(1))
            goal = _Goal.of(packing, rank, experts_L, rows_L, limit_L, most_L, cheap_LE)
            _fill(packing, rank, goal)
    packing.place_rest()
    return packing.layout


def _share(planned_LK: Floats, num_ranks_K: Ints, waiting_L: Floats) -> Floats:
    """One rank's share, of the first kind, in what waits for all ranks that are not filled."""
    planned_L = planned_LK @ num_ranks_K
    share_L: Floats = waiting_L * planned_LK[:, 0] / np.where(planned_L > 0, planned_L, 1.0)
    return share_L


def _cheap(fluid: FluidSolution, rows_LE: Floats, kind: int, kinds: list[int]) -> NDArray[np.bool_]:
    """Experts that cost hardly more on this kind of rank than on any of the kinds to be filled."""
    price_LEK = (
        reads(rows_LE)[:, :, None] * fluid.read_price_LK[:, None, kinds]
        + rows_LE[:, :, None] * fluid.row_price_LK[:, None, kinds]
        + fluid.slot_price_LK[:, None, kinds]
    )
    here = kinds.index(kind)
    cheap_LE: NDArray[np.bool_] = price_LEK[:, :, here] <= price_LEK.min(2) * _NEARLY_AS_CHEAP
    return cheap_LE


@dataclass(frozen=True, slots=True, eq=False)
class _Goal:
    """What one rank should come to hold.

    Attributes:
        pieces_L: replicas.
        rows_L: their rows.
        limit_L: seconds.
        most_L: only experts with more rows than this are split.
        cheap_LE: experts to prefer.
    """

    pieces_L: Floats
    rows_L: Floats
    limit_L: Floats
    most_L: Floats
    cheap_LE: NDArray[np.bool_]

    @staticmethod
    def of(
        packing: Packing,
        rank: int,
        experts_L: Floats,
        rows_L: Floats,
        limit_L: Floats,
        most_L: Floats,
        cheap_LE: NDArray[np.bool_],
    ) -> "_Goal":
        """Whole numbers of experts, and more rows where that rounds down, fewer where up."""
        slots = packing.layout.slots_N[rank]
        splits = not most_L.any()
        pieces_L = (
            experts_L + 1 if splits else np.maximum(np.rint(experts_L), experts_L > _LEAST_PART)
        )
        pieces_L = np.minimum(pieces_L, slots)
        if not splits:
            aim_L = limit_L * _AIM
            per_piece_L = reads(packing.left_LE).sum(1) / np.maximum(packing.waits_LE.sum(1), 1)
            rows_L = rows_L * _rows_beside(packing.costs, rank, pieces_L * per_piece_L, aim_L)
            rows_L = rows_L / _rows_beside(packing.costs, rank, experts_L * per_piece_L, aim_L)
        return _Goal(
            np.where(experts_L > _LEAST_PART, pieces_L, 0.0), rows_L, limit_L, most_L, cheap_LE
        )


def _rows_beside(costs: RankCosts, rank: int, reads_L: Floats, limit_L: Floats) -> Floats:
    """Rows that fit beside that many reads; at least a little."""
    rows_L = np.full(limit_L.shape, np.inf)
    planes = zip(
        costs.fixed_PN[:, rank], costs.per_read_PN[:, rank], costs.per_row_PN[:, rank], strict=True
    )
    for fixed, per_read, per_row in planes:
        if np.isfinite(fixed) and per_row > 0:
            left_L = np.maximum(limit_L - fixed - per_read * reads_L, 0.01 * limit_L)
            rows_L = np.minimum(rows_L, left_L / per_row)
    return np.where(np.isfinite(rows_L), rows_L, 1.0)


def _fill(packing: Packing, rank: int, goal: _Goal) -> None:
    """Fill one rank in all layers, slot by slot, until it has what it should or nothing fits."""
    slots = int(packing.layout.slots_N[rank])
    layer_X = np.flatnonzero(goal.pieces_L > 0)
    for slot in range(slots):
        is_closed_X = (goal.most_L[layer_X] > 0) & (slot >= goal.pieces_L[layer_X])
        layer_X = layer_X[packing.waits_LE[layer_X].any(1) & ~is_closed_X]
        if not len(layer_X):
            return
        expert_X, rows_X = _pick(packing, rank, goal, layer_X, slot)
        may_X = expert_X >= 0
        layer_X, expert_X, rows_X = layer_X[may_X], expert_X[may_X], rows_X[may_X]
        is_whole_X = rows_X >= packing.left_LE[layer_X, expert_X]
        packing.put(layer_X, np.full(len(layer_X), rank), expert_X, rows_X)
        layer_X = layer_X[is_whole_X]


def _pick(
    packing: Packing, rank: int, goal: _Goal, layer_X: Ints, slot: int
) -> tuple[Ints, Floats]:
    """The expert to place next and how many of its rows; expert -1 where none should be."""
    reads_X, held_X = packing.reads_LN[layer_X, rank], packing.rows_LN[layer_X, rank]
    room_X = packing.costs.room(rank, reads_X, held_X, goal.limit_L[layer_X]) * (1 + _ROUNDING)
    slots_left_X = np.maximum(goal.pieces_L[layer_X] - slot, 1.0)
    target_X = np.maximum(goal.rows_L[layer_X] - held_X, 0.0) / slots_left_X
    waits_XE, left_XE = packing.waits_LE[layer_X], packing.left_LE[layer_X]
    row = np.arange(len(layer_X))
    hottest_X = np.where(waits_XE, left_XE, -1.0).argmax(1)
    fits_XE = waits_XE & (left_XE <= room_X[:, None])
    cheap_XE = fits_XE & goal.cheap_LE[layer_X]
    fits_XE = cheap_XE | (fits_XE & ~cheap_XE.any(1, keepdims=True))
    nearest_X = np.where(fits_XE, np.abs(left_XE - target_X[:, None]), np.inf).argmin(1)
    fits_X: NDArray[np.bool_] = fits_XE[row, nearest_X]
    part_X = np.minimum(left_XE[row, hottest_X], room_X)
    is_worth_X = (packing.spare_L[layer_X] > 0) & (part_X > _LEAST_PART * target_X)
    is_worth_X &= left_XE[row, hottest_X] > goal.most_L[layer_X]
    is_last_X = (slots_left_X <= 1.0) & (goal.most_L[layer_X] == 0)
    takes_part_X = (is_last_X | ~fits_X) & is_worth_X
    expert_X = np.where(takes_part_X, hottest_X, np.where(fits_X, nearest_X, -1))
    return expert_X, np.where(takes_part_X, part_X, left_XE[row, nearest_X])


def _largest_room(costs: RankCosts, limit_L: Floats) -> Floats:
    """Rows of the largest replica that an empty rank can take within the limit."""
    nothing_L = np.zeros(limit_L.shape)
    first_K = np.unique(costs.kind_N, return_index=True)[1].tolist()
    rooms = [costs.room(rank, nothing_L, nothing_L, limit_L) for rank in first_K]
    largest_L: Floats = np.max(rooms, axis=0)
    return largest_L
