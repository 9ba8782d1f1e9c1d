"""Moves that take work off the slowest rank: transfers to, and swaps with, idle ranks.

Shapes: X layers under search, N ranks, M other ranks; W and J are all slots of the slowest and of
another rank, C and V those drawn to be moved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_placement.solver.experts.loads import Held, Loads
from moe_placement.solver.experts.moves import Moves, least
from moe_placement.solver.experts.rank_cost import reads
from moe_placement.solver.problem import Floats, Ints

_IDLEST_RANKS = 5
_OTHER_RANKS = 3
_MOST_SLOTS = 8
_MOST_PART = 0.9999


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhood:
    """Attributes:
    worst_X: the slowest ranks.
    here_XW: what they hold.
    mine_XC: those of their slots that may be moved.
    rank_XM: other ranks.
    there_XMJ: what they hold.
    theirs_XMV: those of their slots that may be moved.
    may_go_XM: whole replicas may cross between the slowest and the other rank.
    """

    loads: Loads
    layer_X: Ints
    worst_X: Ints
    here_XW: Held
    mine_XC: Held
    rank_XM: Ints
    there_XMJ: Held
    theirs_XMV: Held
    may_go_XM: NDArray[np.bool_]

    @staticmethod
    def around(
        loads: Loads, layer_X: Ints, domain_N: Ints | None, rng: np.random.Generator
    ) -> "Neighbourhood":
        """Around the slowest rank of each of these layers.

        Args:
            domain_N: failure domains; where given, whole replicas stay in theirs.
        """
        seconds_XN = loads.seconds_LN[layer_X]
        worst_X = seconds_XN.argmax(1)
        if domain_N is None:
            domain_N = np.zeros(seconds_XN.shape[1], np.int64)
        is_away_XN = domain_N != domain_N[worst_X][:, None]
        rank_XM = _idle_ranks(seconds_XN + is_away_XN * seconds_XN.max(), rng)
        here_XW = loads.held(layer_X, worst_X)
        there_XMJ = loads.held(layer_X[:, None], rank_XM)
        return Neighbourhood(
            loads=loads,
            layer_X=layer_X,
            worst_X=worst_X,
            here_XW=here_XW,
            mine_XC=here_XW.take(_drawn(here_XW.expert, rng)),
            rank_XM=rank_XM,
            there_XMJ=there_XMJ,
            theirs_XMV=there_XMJ.take(_drawn(there_XMJ.expert, rng)),
            may_go_XM=~np.take_along_axis(is_away_XN, rank_XM, axis=1),
        )

    def best(self, may_split_X: NDArray[np.bool_]) -> Moves:
        """The move after which the slower one of its two ranks is fastest.

        Args:
            may_split_X: there is a slot left for one replica more.
        """
        return self._transfers(may_split_X).or_better(self._swaps())

    def _swaps(self) -> Moves:
        mine, theirs = self.mine_XC, self.theirs_XMV
        is_mine_there = (mine.expert[:, :, None, None] == self.there_XMJ.expert[:, None]).any(3)
        is_theirs_here = (theirs.expert[..., None] == self.here_XW.expert[:, None, None]).any(3)
        is_wrong = is_mine_there[..., None] | is_theirs_here[:, None]
        is_wrong |= (mine.expert < 0)[:, :, None, None] | (theirs.expert < 0)[:, None]
        is_wrong |= ~self.may_go_XM[:, None, :, None]
        rows_out, rows_in = mine.rows[:, :, None, None], theirs.rows[:, None]
        rows, more = rows_in - rows_out, reads(rows_in) - reads(rows_out)
        seconds = np.maximum(
            self._at(self.worst_X[:, None, None, None], more, rows),
            self._at(self.rank_XM[:, None, :, None], -more, -rows),
        )
        best, (piece, rank, slot) = least(np.where(is_wrong, np.inf, seconds))
        row = np.arange(len(best))
        return Moves(
            best,
            mine.slot[row, piece],
            theirs.slot[row, rank, slot],
            mine.rows[row, piece],
            np.ones(len(best), np.bool_),
        )

    def _transfers(self, may_split_X: NDArray[np.bool_]) -> Moves:
        """Whole replicas, or parts that about level the two ranks; onto a replica of the same
        expert where there is one, else into a free slot."""
        mine, there = self.mine_XC, self.there_XMJ
        is_there = mine.expert[:, :, None, None] == there.expert[:, None]
        joins_XCM = is_there.any(3)
        is_free_XMJ = there.expert == -1
        place_XCM = np.where(joins_XCM, is_there.argmax(3), is_free_XMJ.argmax(2)[:, None])
        may_XCM = (joins_XCM | is_free_XMJ.any(2)[:, None]) & (mine.expert >= 0)[:, :, None]
        may_XCM &= (self.rank_XM != self.worst_X[:, None])[:, None]
        may_part_XCM = may_XCM & (joins_XCM | may_split_X[:, None, None])
        joined_XCM = np.where(is_there, there.rows[:, None], 0.0).sum(3)
        all_XCM = np.broadcast_to(mine.rows[:, :, None], joined_XCM.shape)
        after_all = self._after(all_XCM, joined_XCM)
        part_XCM = self._levelling(all_XCM, after_all)
        after_part = self._after(part_XCM, joined_XCM)
        whole = self._transfer(all_XCM, after_all, place_XCM, may_XCM & self.may_go_XM[:, None])
        return whole.or_better(self._transfer(part_XCM, after_part, place_XCM, may_part_XCM))

    def _transfer(
        self,
        rows_XCM: Floats,
        after: tuple[Floats, Floats],
        place_XCM: Ints,
        may_XCM: NDArray[np.bool_],
    ) -> Moves:
        best, (piece, rank) = least(np.where(may_XCM, np.maximum(*after), np.inf))
        row = np.arange(len(best))
        return Moves(
            best,
            self.mine_XC.slot[row, piece],
            self.there_XMJ.slot[row, rank, place_XCM[row, piece, rank]],
            rows_XCM[row, piece, rank],
            np.zeros(len(best), np.bool_),
        )

    def _levelling(self, all_XCM: Floats, after_all: tuple[Floats, Floats]) -> Floats:
        """Rows after whose transfer both ranks take about as long, by linear interpolation."""
        seconds_LN = self.loads.seconds_LN
        worst_X1 = seconds_LN[self.layer_X, self.worst_X][:, None]
        before_XM = worst_X1 - seconds_LN[self.layer_X[:, None], self.rank_XM]
        gap_XCM = after_all[0] - after_all[1]
        slope_XCM = np.maximum(before_XM[:, None] - gap_XCM, 1e-300)
        part_XCM: Floats = all_XCM * np.clip(before_XM[:, None] / slope_XCM, 0.0, _MOST_PART)
        return part_XCM

    def _after(self, rows_XCM: Floats, joined_XCM: Floats) -> tuple[Floats, Floats]:
        """Seconds of the slowest rank and of the other one once rows have gone across."""
        left = self.mine_XC.rows[:, :, None]
        fewer = reads(left - rows_XCM) - reads(left)
        more = reads(joined_XCM + rows_XCM) - reads(joined_XCM)
        return (
            self._at(self.worst_X[:, None, None], fewer, -rows_XCM),
            self._at(self.rank_XM[:, None], more, rows_XCM),
        )

    def _at(self, rank: Ints, reads_in: Floats, rows_in: Floats) -> Floats:
        """Seconds of ranks that get this much more."""
        layer = self.layer_X.reshape(-1, *[1] * (rank.ndim - 1))
        return self.loads.costs.seconds_at(
            rank,
            self.loads.reads_LN[layer, rank] + reads_in,
            self.loads.rows_LN[layer, rank] + rows_in,
        )


def _idle_ranks(seconds_XN: Floats, rng: np.random.Generator) -> Ints:
    """The idlest ranks and some others."""
    num_ranks = seconds_XN.shape[1]
    if num_ranks <= _IDLEST_RANKS + _OTHER_RANKS:
        return np.tile(np.arange(num_ranks), (len(seconds_XN), 1))
    idlest_XM = np.argpartition(seconds_XN, _IDLEST_RANKS, axis=1)[:, :_IDLEST_RANKS]
    others_M = rng.choice(num_ranks, _OTHER_RANKS, replace=False)
    return np.concatenate([idlest_XM, np.tile(others_M, (len(seconds_XN), 1))], axis=1)


def _drawn(expert: Ints, rng: np.random.Generator) -> Ints:
    """Places of some of the filled slots, in the last axis; all where there are few."""
    width = expert.shape[-1]
    if width <= _MOST_SLOTS:
        return np.broadcast_to(np.arange(width), expert.shape)
    key = rng.random(expert.shape) + (expert < 0)
    return np.argpartition(key, _MOST_SLOTS, axis=-1)[..., :_MOST_SLOTS]
