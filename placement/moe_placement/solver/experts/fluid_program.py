"""Experts divisible over kinds of ranks: the linear program behind the lower bound.

Shapes: L layers, E experts, B bins of experts alike, K kinds of ranks, P planes of a curve.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from moe_placement.solver.experts.rank_cost import RankCosts
from moe_placement.solver.problem import Floats, Ints

_MOST_VARIABLES = 6000
_FEWEST_BINS = 12


@dataclass(frozen=True, slots=True, eq=False)
class FluidSolution:
    """Attributes:
    seconds_L: a lower bound of the slowest rank in each layer.
    rows_LK: rows that one rank of each kind takes at the optimum.
    experts_LK: experts that it holds, as a sum of shares.
    read_price_LK: seconds that the bound gains with each read on ranks of a kind.
    row_price_LK: the same for each row.
    slot_price_LK: the same for each slot taken.
    """

    seconds_L: Floats
    rows_LK: Floats
    experts_LK: Floats
    read_price_LK: Floats
    row_price_LK: Floats
    slot_price_LK: Floats

    def take(self, layers: Ints) -> "FluidSolution":
        """The same for some layers."""
        return FluidSolution(*(getattr(self, name)[layers] for name in FluidSolution.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Kinds:
    """Ranks by kind: their planes, the cheapest where they differ, and how many there are."""

    fixed_KP: Floats
    per_read_KP: Floats
    per_row_KP: Floats
    num_ranks_K: Ints

    @staticmethod
    def of(costs: RankCosts) -> "Kinds":
        members = [costs.kind_N == kind for kind in range(costs.num_kinds)]

        def cheapest(plane_PN: Floats) -> Floats:
            return np.stack([plane_PN[:, ranks_N].min(1) for ranks_N in members])

        return Kinds(
            cheapest(costs.fixed_PN),
            cheapest(costs.per_read_PN),
            cheapest(costs.per_row_PN),
            np.bincount(costs.kind_N),
        )


def solve_fluid(
    kinds: Kinds, rows_LE: Floats, reads_LEK: Floats, slots_LK: Floats
) -> FluidSolution:
    """Spread every layer's experts over kinds of ranks in any shares, to the least seconds.

    Minimise T over shares x_ek >= 0 with sum_k x_ek = 1, sum_e x_ek <= slots_k, and on each plane
    fixed + (per_read * sum_e x_ek * reads_ek + per_row * sum_e x_ek * rows_e) / ranks_k <= T.

    The primal is solved over bins of experts alike; the bound is the Lagrangian dual at its
    multipliers, evaluated over all experts, so it holds whatever the bins and the rounding.

    Args:
        rows_LE: sorted in each layer.
        reads_LEK: reads of an expert if all of it were on ranks of kind k.
        slots_LK: slots of all ranks of a kind; each layer's sum is at least E.
    """
    if len(kinds.num_ranks_K) == 1:
        return _one_kind(kinds, rows_LE, reads_LEK[:, :, 0])
    binned = _binned(rows_LE, reads_LEK)
    scale_L = _scale(kinds, rows_LE, reads_LEK)
    shares_LBK, price_LKP, slot_price_LK = _optimum(kinds, *binned, slots_LK, scale_L)
    count_LB, _, binned_rows_LB = binned
    prices = _Prices.of(kinds, price_LKP, slot_price_LK)
    return FluidSolution(
        prices.bound(rows_LE, reads_LEK, slots_LK),
        np.einsum("lbk,lb->lk", shares_LBK, binned_rows_LB) / kinds.num_ranks_K,
        np.einsum("lbk,lb->lk", shares_LBK, count_LB) / kinds.num_ranks_K,
        prices.read_LK,
        prices.row_LK,
        prices.slot_LK,
    )


def _one_kind(kinds: Kinds, rows_LE: Floats, reads_LE: Floats) -> FluidSolution:
    """Like ranks share alike: each plane at the mean reads and rows."""
    num_ranks = kinds.num_ranks_K[0]
    reads_L = reads_LE.sum(1) / num_ranks
    rows_L = rows_LE.sum(1) / num_ranks
    planes_LP = (
        kinds.fixed_KP[0]
        + kinds.per_read_KP[0] * reads_L[:, None]
        + kinds.per_row_KP[0] * rows_L[:, None]
    )
    plane_L = planes_LP.argmax(1)
    experts_L = np.full(len(rows_LE), rows_LE.shape[1] / num_ranks)
    return FluidSolution(
        planes_LP.max(1),
        rows_L[:, None],
        experts_L[:, None],
        kinds.per_read_KP[0, plane_L, None] / num_ranks,
        kinds.per_row_KP[0, plane_L, None] / num_ranks,
        np.zeros((len(rows_LE), 1)),
    )


def _binned(rows_LE: Floats, reads_LEK: Floats) -> tuple[Floats, Floats, Floats]:
    """Experts, reads and rows of each bin; bins are runs of the sorted experts."""
    num_layers, num_experts, num_kinds = reads_LEK.shape
    num_bins = max(_FEWEST_BINS, _MOST_VARIABLES // (num_layers * num_kinds))
    starts_B = np.unique(np.linspace(0, num_experts, min(num_bins, num_experts) + 1).astype(int))[
        :-1
    ]
    count_B = np.diff(starts_B, append=num_experts).astype(np.float64)
    return (
        np.broadcast_to(count_B, (num_layers, len(count_B))),
        np.add.reduceat(reads_LEK, starts_B, axis=1),
        np.add.reduceat(rows_LE, starts_B, axis=1),
    )


def _scale(kinds: Kinds, rows_LE: Floats, reads_LEK: Floats) -> Floats:
    """Seconds of each layer if all ranks were to share alike, so that the program is near 1."""
    num_ranks = kinds.num_ranks_K.sum()
    reads_LK1 = reads_LEK.sum(1)[:, :, None] / num_ranks
    rows_L11 = rows_LE.sum(1)[:, None, None] / num_ranks
    planes_LKP = kinds.fixed_KP + kinds.per_read_KP * reads_LK1 + kinds.per_row_KP * rows_L11
    scale_L: Floats = planes_LKP.max((1, 2))
    return np.where(scale_L > 0, scale_L, 1.0)


def _optimum(
    kinds: Kinds,
    count_LB: Floats,
    reads_LBK: Floats,
    rows_LB: Floats,
    slots_LK: Floats,
    scale_L: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Shares and multipliers of all layers in one program."""
    num_layers, num_bins = rows_LB.shape
    num_kinds, num_planes = kinds.fixed_KP.shape
    layers = [
        _layer_rows(kinds, count_LB[i], reads_LBK[i] / scale_L[i], rows_LB[i] / scale_L[i])
        for i in range(num_layers)
    ]
    fixed_LKP = np.broadcast_to(kinds.fixed_KP, (num_layers, num_kinds, num_planes))
    limits = np.where(np.isfinite(fixed_LKP), -fixed_LKP / scale_L[:, None, None], 1e9)
    right = np.concatenate([limits.reshape(num_layers, -1), slots_LK], axis=1)
    variables = num_bins * num_kinds + 1
    share_rows = scipy.sparse.csr_array(
        np.hstack([np.tile(np.eye(num_bins), num_kinds), np.zeros((num_bins, 1))])
    )
    answer = scipy.optimize.linprog(
        np.tile(np.eye(variables)[-1], num_layers),
        A_ub=scipy.sparse.block_diag(layers, format="csr"),
        b_ub=right.reshape(-1),
        A_eq=scipy.sparse.block_diag([share_rows] * num_layers, format="csr"),
        b_eq=np.ones(num_layers * num_bins),
        method="highs",
    )
    if answer.x is None:
        raise ArithmeticError(f"the fluid program was not solved: {answer.message}")
    shares_LKB = answer.x.reshape(num_layers, variables)[:, :-1].reshape(-1, num_kinds, num_bins)
    duals = np.maximum(-answer.ineqlin.marginals.reshape(num_layers, -1), 0.0)
    price_LKP = duals[:, : num_kinds * num_planes].reshape(-1, num_kinds, num_planes)
    slot_price_LK = duals[:, num_kinds * num_planes :] * scale_L[:, None]
    return np.swapaxes(shares_LKB, 1, 2), price_LKP, slot_price_LK


def _layer_rows(
    kinds: Kinds, count_B: Floats, reads_BK: Floats, rows_B: Floats
) -> "scipy.sparse.csr_array":
    """One layer's inequalities over (kind, bin) shares and T: planes, then slots."""
    num_kinds, num_planes = kinds.fixed_KP.shape
    rows = np.zeros((num_kinds * (num_planes + 1), num_kinds, len(rows_B)))
    for kind in range(num_kinds):
        for plane in range(num_planes):
            per_read, per_row = kinds.per_read_KP[kind, plane], kinds.per_row_KP[kind, plane]
            rows[kind * num_planes + plane, kind] = (
                per_read * reads_BK[:, kind] + per_row * rows_B
            ) / kinds.num_ranks_K[kind]
        rows[num_kinds * num_planes + kind, kind] = count_B
    time_column = np.repeat([-1.0, 0.0], [num_kinds * num_planes, num_kinds])
    return scipy.sparse.csr_array(np.hstack([rows.reshape(len(rows), -1), time_column[:, None]]))


@dataclass(frozen=True, slots=True, eq=False)
class _Prices:
    """Multipliers of the program, summed up to prices; any that are not negative give a bound."""

    constant_L: Floats
    read_LK: Floats
    row_LK: Floats
    slot_LK: Floats

    @staticmethod
    def of(kinds: Kinds, price_LKP: Floats, slot_price_LK: Floats) -> "_Prices":
        is_plane_KP = np.isfinite(kinds.fixed_KP)
        price_LKP = price_LKP * is_plane_KP
        price_LKP = price_LKP / np.maximum(price_LKP.sum((1, 2), keepdims=True), 1e-300)
        weight_LKP = price_LKP / kinds.num_ranks_K[:, None]
        return _Prices(
            (price_LKP * np.where(is_plane_KP, kinds.fixed_KP, 0.0)).sum((1, 2)),
            (weight_LKP * kinds.per_read_KP).sum(2),
            (weight_LKP * kinds.per_row_KP).sum(2),
            slot_price_LK,
        )

    def bound(self, rows_LE: Floats, reads_LEK: Floats, slots_LK: Floats) -> Floats:
        """The Lagrangian: every expert goes to the kind where it is cheapest."""
        price_LEK = (
            reads_LEK * self.read_LK[:, None]
            + rows_LE[:, :, None] * self.row_LK[:, None]
            + self.slot_LK[:, None]
        )
        bound_L: Floats = self.constant_L - (self.slot_LK * slots_LK).sum(1)
        bound_L += price_LEK.min(2).sum(1)
        return bound_L
