"""Moves between layouts whose replicas share evenly: swap two, or turn one into another expert's.

Shapes: X layers, E experts, N ranks, S slots of all ranks, J slots of the slowest rank.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.layout import Layout
from moe_placement.solver.experts.rank_cost import RankCosts, reads
from moe_placement.solver.problem import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A layout with the sums that its cost is made of.

    Attributes:
        fewer_XE: rows of each replica if the expert had one replica less; inf where it has one.
        more_XE: rows of each replica if the expert had one more.
    """

    costs: RankCosts
    layout: Layout
    reads_XN: Floats
    rows_XN: Floats
    slowest_X: Floats
    worst_X: Ints
    fewer_XE: Floats
    more_XE: Floats

    @staticmethod
    def of(costs: RankCosts, layout: Layout, rows_XE: Floats, count_XE: Ints) -> "Held":
        reads_XN, rows_XN = layout.reads_by_rank(), layout.rows_by_rank()
        seconds_XN = costs.seconds(reads_XN, rows_XN)
        fewer_XE = np.where(count_XE > 1, rows_XE / np.maximum(count_XE - 1, 1), np.inf)
        worst_X = seconds_XN.argmax(1)
        slowest_X = seconds_XN[np.arange(len(worst_X)), worst_X]
        more_XE = rows_XE / (count_XE + 1)
        return Held(costs, layout, reads_XN, rows_XN, slowest_X, worst_X, fewer_XE, more_XE)

    def take(self, layers: Ints) -> "Held":
        """Some layers."""
        return Held(
            self.costs,
            self.layout.take(layers),
            self.reads_XN[layers],
            self.rows_XN[layers],
            self.slowest_X[layers],
            self.worst_X[layers],
            self.fewer_XE[layers],
            self.more_XE[layers],
        )

    def after(self, rank: Ints, out: Floats, into: Floats) -> Floats:
        """Seconds of ranks that give replicas of `out` rows away and get some of `into` rows."""
        layer = np.arange(len(self.worst_X)).reshape(-1, *[1] * (out.ndim - 1))
        return self.costs.seconds_at(
            rank,
            self.reads_XN[layer, rank] - reads(out) + reads(into),
            self.rows_XN[layer, rank] - out + into,
        )

    def without(self) -> Floats:
        """For each slot, the slowest rank of its expert's other replicas if it went; inf where it
        is the only one."""
        expert_XS, rows_XS = self.layout.expert_LS, self.layout.rows_LS
        fewer_XS = np.take_along_axis(self.fewer_XE, expert_XS, axis=1)
        is_last_XS = np.isinf(fewer_XS)
        grown_XS = np.where(is_last_XS, rows_XS, fewer_XS)
        seconds_XS = self.after(self.layout.ranks[None], rows_XS, grown_XS)
        return np.where(is_last_XS, np.inf, self._most_of_others(seconds_XS))

    def _most_of_others(self, values_XS: Floats) -> Floats:
        """For each slot, the largest value of its expert's other slots; any where there is none."""
        line_X1 = np.arange(len(self.worst_X))[:, None] * self.fewer_XE.shape[1]
        key_S = (self.layout.expert_LS + line_X1).ravel()
        order_S = np.argsort(key_S, kind="stable")
        sorted_S, key_S = values_XS.ravel()[order_S], key_S[order_S]
        start_Y = np.flatnonzero(np.append(True, key_S[1:] != key_S[:-1]))
        size_Y = np.diff(np.append(start_Y, len(key_S)))
        most_S = np.repeat(np.maximum.reduceat(sorted_S, start_Y), size_Y)
        is_most_S = sorted_S == most_S
        is_alone_S = np.repeat(np.add.reduceat(is_most_S.astype(np.int64), start_Y) == 1, size_Y)
        lower_S = np.where(is_most_S, -np.inf, sorted_S)
        second_S = np.repeat(np.maximum.reduceat(lower_S, start_Y), size_Y)
        others_S = np.empty(len(key_S))
        others_S[order_S] = np.where(is_most_S & is_alone_S, second_S, most_S)
        return others_S.reshape(values_XS.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """One move in each layer.

    Attributes:
        seconds_X: of the slowest rank that it touches.
        slot_X, other_X: the slots that change, which may be the same.
        expert_X2: what these then hold.
    """

    seconds_X: Floats
    slot_X: Ints
    other_X: Ints
    expert_X2: Ints

    def take(self, mask_X: NDArray[np.bool_]) -> "Chosen":
        """Some layers."""
        return Chosen(
            self.seconds_X[mask_X],
            self.slot_X[mask_X],
            self.other_X[mask_X],
            self.expert_X2[mask_X],
        )

    def put(self, places: Ints, other: "Chosen", faster: NDArray[np.bool_]) -> None:
        """Overwrite some layers where another move is faster."""
        places = places[faster]
        self.seconds_X[places] = other.seconds_X[faster]
        self.slot_X[places], self.other_X[places] = other.slot_X[faster], other.other_X[faster]
        self.expert_X2[places] = other.expert_X2[faster]


def best_moves(held: Held, least_gain: float) -> Chosen:
    """The best swap of each layer; where none gains that share, the best other move."""
    chosen = EvenMoves.around(held).swap()
    stuck = np.flatnonzero(chosen.seconds_X >= held.slowest_X * (1 - least_gain))
    if len(stuck):
        part = held.take(stuck)
        without_XS, moves = part.without(), EvenMoves.around(part)
        for other in (moves.one_more(without_XS), moves.one_less(without_XS)):
            chosen.put(stuck, other, other.seconds_X < chosen.seconds_X[stuck])
    return chosen


@dataclass(frozen=True, slots=True, eq=False)
class EvenMoves:
    """All moves that take work off the slowest rank.

    Attributes:
        mine_XJ: its slots; repeated where it has fewer than another.
        expert_XJ: what they hold.
        is_held_XJS: the rank of the slot holds the expert.
    """

    held: Held
    mine_XJ: Ints
    expert_XJ: Ints
    rows_XJ: Floats
    is_held_XJS: NDArray[np.bool_]

    @staticmethod
    def around(held: Held) -> "EvenMoves":
        layout = held.layout
        slots_X1 = layout.slots_N[held.worst_X][:, None]
        offset_J = np.arange(int(layout.slots_N.max()))
        mine_XJ = layout.starts[held.worst_X][:, None] + np.minimum(offset_J, slots_X1 - 1)
        expert_XJ = np.take_along_axis(layout.expert_LS, mine_XJ, axis=1)
        is_same_XJS = expert_XJ[:, :, None] == layout.expert_LS[:, None]
        has_slots_N = layout.slots_N > 0
        starts = layout.starts[has_slots_N]
        is_held_XJN = np.logical_or.reduceat(is_same_XJS, starts, axis=2)
        place_S = (np.cumsum(has_slots_N) - 1)[layout.ranks]
        return EvenMoves(
            held,
            mine_XJ,
            expert_XJ,
            np.take_along_axis(layout.rows_LS, mine_XJ, axis=1),
            is_held_XJN[:, :, place_S],
        )

    def swap(self) -> Chosen:
        """A replica of the slowest rank against one of another."""
        held, layout = self.held, self.held.layout
        mine_XJ1, theirs_X1S = self.rows_XJ[:, :, None], layout.rows_LS[:, None]
        shape = self.is_held_XJS.shape
        mine, theirs = np.broadcast_to(mine_XJ1, shape), np.broadcast_to(theirs_X1S, shape)
        seconds = np.maximum(
            held.after(held.worst_X[:, None, None], mine, theirs),
            held.after(layout.ranks, theirs, mine),
        )
        is_mine_XS = (self.expert_XJ[:, :, None] == layout.expert_LS[:, None]).any(1)
        may = ~self.is_held_XJS & ~is_mine_XS[:, None]
        best_X, at_X, slot_X = _least(np.where(may, seconds, np.inf))
        row = np.arange(len(best_X))
        swapped_X2 = np.stack([layout.expert_LS[row, slot_X], self.expert_XJ[row, at_X]], axis=1)
        return Chosen(best_X, self.mine_XJ[row, at_X], slot_X, swapped_X2)

    def one_more(self, without_XS: Floats) -> Chosen:
        """A further replica of an expert of the slowest rank, in place of another's elsewhere."""
        held, layout = self.held, self.held.layout
        more_XJ = np.take_along_axis(held.more_XE, self.expert_XJ, axis=1)
        shape = self.is_held_XJS.shape
        elsewhere = held.after(
            layout.ranks,
            np.broadcast_to(layout.rows_LS[:, None], shape),
            np.broadcast_to(more_XJ[:, :, None], shape),
        )
        here_XJ = held.after(held.worst_X[:, None], self.rows_XJ, more_XJ)
        seconds = np.maximum(np.maximum(elsewhere, here_XJ[:, :, None]), without_XS[:, None])
        best_X, at_X, slot_X = _least(np.where(self.is_held_XJS, np.inf, seconds))
        expert_X = self.expert_XJ[np.arange(len(best_X)), at_X]
        return Chosen(best_X, slot_X, slot_X, np.stack([expert_X, expert_X], axis=1))

    def one_less(self, without_XS: Floats) -> Chosen:
        """A replica of the slowest rank makes room for a further one of another expert."""
        held, row = self.held, np.arange(len(self.mine_XJ))
        shape = (*self.mine_XJ.shape, held.more_XE.shape[1])
        here = held.after(
            held.worst_X[:, None, None],
            np.broadcast_to(self.rows_XJ[:, :, None], shape),
            np.broadcast_to(held.more_XE[:, None], shape),
        )
        without_XJ = np.take_along_axis(without_XS, self.mine_XJ, axis=1)
        seconds = np.maximum(here, without_XJ[:, :, None])
        may_XE = np.ones(held.more_XE.shape, np.bool_)
        may_XE[row[:, None], self.expert_XJ] = False
        best_X, at_X, expert_X = _least(np.where(may_XE[:, None], seconds, np.inf))
        slot_X = self.mine_XJ[row, at_X]
        return Chosen(best_X, slot_X, slot_X, np.stack([expert_X, expert_X], axis=1))


def _least(seconds_XIK: Floats) -> tuple[Floats, Ints, Ints]:
    """The least value of each layer and where it stands."""
    width = seconds_XIK.shape[2]
    flat = seconds_XIK.reshape(len(seconds_XIK), -1)
    place_X = flat.argmin(1)
    return flat[np.arange(len(flat)), place_X], place_X // width, place_X % width
