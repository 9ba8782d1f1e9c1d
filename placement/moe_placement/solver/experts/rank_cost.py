"""What ranks need for their experts: the true cost, over many layers and ranks at once.

Shapes: L MoE layers, E experts, N ranks, P planes of a curve; rows are (token, expert) pairs.
"""

from dataclasses import dataclass

import numpy as np

from moe_placement.hardware.device import ExpertCurve, Plane
from moe_placement.solver.problem import ExpertProblem, Floats, Ints

_NEWTON_STEPS = 5
_MOST_KINDS = 48


def reads(rows: Floats) -> Floats:
    """How often a step reads a replica's weights that has `rows` rows in the mean.

    Rows come as a Poisson draw, so a step has none with probability exp(-rows), and an expert
    without rows is not read. Growing and concave: two halves are read more than one whole.
    """
    return -np.expm1(-rows)


@dataclass(frozen=True, slots=True, eq=False)
class RankCosts:
    """Seconds of each rank in one layer: the largest of its planes.

    A curve's plane in bytes and FLOPs becomes one in reads (experts whose weights are read) and
    rows: the weight format, the FLOPs of a row and the link's seconds per row are folded in.

    Attributes:
        fixed_PN: seconds without any work; -inf where a rank has fewer planes.
        per_read_PN: seconds of each expert read.
        per_row_PN: seconds of each row.
        kind_N: ranks of one kind have the same planes; nearly the same, where there are very many.
    """

    fixed_PN: Floats
    per_read_PN: Floats
    per_row_PN: Floats
    kind_N: Ints

    @staticmethod
    def of(problem: ExpertProblem) -> "RankCosts":
        curves = problem.curves
        num_planes = max(len(curve.planes) for curve in curves)
        planes_CP3 = np.array([_padded(curve, num_planes) for curve in curves])
        fixed_PN, per_byte_PN, per_flop_PN = np.moveaxis(
            planes_CP3[problem.curve_N], (2, 1), (0, 1)
        )
        per_read_PN = per_byte_PN * problem.expert_bytes_N
        per_row_PN = per_flop_PN * problem.flops_per_row + problem.row_seconds_N
        return RankCosts(
            fixed_PN, per_read_PN, per_row_PN, _kinds(fixed_PN, per_read_PN, per_row_PN)
        )

    @property
    def num_kinds(self) -> int:
        return int(self.kind_N.max()) + 1

    def take(self, ranks: Ints) -> "RankCosts":
        """Those of some ranks."""
        kind_n = np.unique(self.kind_N[ranks], return_inverse=True)[1]
        planes = (self.fixed_PN, self.per_read_PN, self.per_row_PN)
        fixed, per_read, per_row = (plane_PN[:, ranks] for plane_PN in planes)
        return RankCosts(fixed, per_read, per_row, kind_n)

    def shared(self, sizes_C: Ints) -> "RankCosts":
        """Those of clusters of like ranks that share reads and rows evenly."""
        num_clusters = len(sizes_C)
        return RankCosts(
            self.fixed_PN[:, :num_clusters],
            self.per_read_PN[:, :num_clusters] / sizes_C,
            self.per_row_PN[:, :num_clusters] / sizes_C,
            np.unique(sizes_C, return_inverse=True)[1],
        )

    def seconds(self, reads_LN: Floats, rows_LN: Floats) -> Floats:
        """Seconds of all ranks; arrays end in the axis of ranks."""
        return self._largest(slice(None), reads_LN, rows_LN)

    def seconds_at(self, rank_X: Ints, reads_X: Floats, rows_X: Floats) -> Floats:
        """Seconds of the named ranks; shapes broadcast."""
        return self._largest(rank_X, reads_X, rows_X)

    def _largest(self, ranks: slice | Ints, reads_X: Floats, rows_X: Floats) -> Floats:
        planes = zip(self.fixed_PN, self.per_read_PN, self.per_row_PN, strict=True)
        seconds_X: Floats | None = None
        for fixed_N, per_read_N, per_row_N in planes:
            plane_X = fixed_N[ranks] + per_read_N[ranks] * reads_X + per_row_N[ranks] * rows_X
            seconds_X = plane_X if seconds_X is None else np.maximum(seconds_X, plane_X)
        assert seconds_X is not None
        return seconds_X

    def rows_within(self, limit_L: Floats) -> Floats:
        """Rows that each rank does within a time limit if reads cost nothing (L x N)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            rows_PLN = (limit_L[:, None] - self.fixed_PN[:, None]) / self.per_row_PN[:, None]
        rows_PLN = np.where(self.per_row_PN[:, None] > 0, np.maximum(rows_PLN, 0.0), np.inf)
        rows_LN: Floats = rows_PLN.min(0)
        return rows_LN

    def room(self, rank: int, reads_L: Floats, rows_L: Floats, limit_L: Floats) -> Floats:
        """Rows of the largest replica that a rank can add within a time limit; never below 0.

        Each plane asks for the root of a concave growing function: Newton's method from a point
        below stays below, so the answer is feasible, and short of the root by rounding only.
        """
        room_L = np.full(limit_L.shape, np.inf)
        planes = zip(
            self.fixed_PN[:, rank], self.per_read_PN[:, rank], self.per_row_PN[:, rank], strict=True
        )
        for fixed, per_read, per_row in planes:
            if np.isfinite(fixed) and (per_read > 0 or per_row > 0):
                left_L = limit_L - fixed - per_read * reads_L - per_row * rows_L
                room_L = np.minimum(room_L, largest_replica(left_L, per_read, per_row))
        return room_L


def largest_replica(left: Floats, per_read: float, per_row: float) -> Floats:
    """Rows x with per_read * reads(x) + per_row * x = left, from below; inf where none binds."""
    left = np.maximum(left, 0.0)
    if per_row == 0.0:
        return _rows_read(left / per_read)
    if per_read == 0.0:
        return left / per_row
    most = np.minimum(_rows_read(left / per_read), left / per_row)
    least = _rows_read(np.maximum(left - per_row * most, 0.0) / per_read)
    rows = np.maximum(np.minimum(least, most), (left - per_read) / per_row)
    for _ in range(_NEWTON_STEPS):
        unread = np.exp(-rows)
        missing = left - per_read * (1 - unread) - per_row * rows
        rows = rows + np.maximum(missing, 0.0) / (per_read * unread + per_row)
    return rows


def replica_at_most(left: Floats, per_read: float, per_row: float) -> Floats:
    """The same from above."""
    rows = largest_replica(left, per_read, per_row)
    if per_row == 0.0 or per_read == 0.0:
        return rows
    by_reads = _rows_read((left - per_row * rows) / per_read)
    return np.maximum(rows, np.minimum(by_reads, (left - per_read * reads(rows)) / per_row))


def _rows_read(probability: Floats) -> Floats:
    """The inverse of `reads`; inf from 1 on."""
    rows = -np.log1p(-np.minimum(probability, 1 - 1e-15))
    return np.where(probability < 1, rows, np.inf)


def _padded(curve: ExpertCurve, num_planes: int) -> list[tuple[float, float, float]]:
    planes = [*curve.planes, *[Plane(-np.inf, 0.0, 0.0)] * (num_planes - len(curve.planes))]
    return [(plane.fixed, plane.per_byte, plane.per_flop) for plane in planes]


def _kinds(fixed_PN: Floats, per_read_PN: Floats, per_row_PN: Floats) -> Ints:
    """Numbers of kinds; planes are compared by ever fewer digits until there are not too many."""
    planes_XN = np.concatenate([fixed_PN, per_read_PN, per_row_PN])
    with np.errstate(divide="ignore"):
        logarithm_XN = np.where(planes_XN > 0, np.log2(np.abs(planes_XN)), planes_XN)
    for digits in (None, 5, 3, 2, 1, 0):
        key_XN = planes_XN if digits is None else np.round(logarithm_XN, digits)
        kind_N = np.unique(key_XN, axis=1, return_inverse=True)[1].reshape(-1)
        if kind_N.max() < _MOST_KINDS:
            break
    return kind_N.astype(np.int64)
