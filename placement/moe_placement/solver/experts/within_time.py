"""What fits on one rank within a time limit: the most rows of a replica, the most experts.

Shapes: L layers, E experts, K kinds of ranks.
"""

from collections.abc import Iterator

import numpy as np

from moe_placement.solver.experts.fluid_program import Kinds
from moe_placement.solver.experts.rank_cost import reads, replica_at_most
from moe_placement.solver.problem import Floats


def most_rows(kinds: Kinds, limit_L: Floats) -> Floats:
    """Rows of the largest replica by layer and kind of rank, from above; inf without a limit."""
    most_LK = np.full((len(limit_L), len(kinds.num_ranks_K)), np.inf)
    for kind in range(most_LK.shape[1]):
        for fixed, per_read, per_row in _planes(kinds, kind):
            rows_L = replica_at_most(limit_L - fixed, per_read, per_row)
            most_LK[:, kind] = np.minimum(most_LK[:, kind], rows_L)
    return most_LK


def most_shares(kinds: Kinds, rows_LE: Floats, limit_L: Floats) -> Floats:
    """Most experts, as a sum of shares, on one rank of each kind; from above.

    Cost on a plane is concave in each share, so at the most there is at most one expert in part,
    and the experts are those with the fewest rows: if m of them fit whole and m + 1 do not, the
    answer is m and the largest share of any one of these m + 1 beside the other m whole.

    Args:
        rows_LE: sorted in each layer.
    """
    num_layers, num_experts = rows_LE.shape
    most_LK = np.full((num_layers, len(kinds.num_ranks_K)), float(num_experts))
    for kind in range(most_LK.shape[1]):
        for fixed, per_read, per_row in _planes(kinds, kind):
            shares_L = _shares_on_plane(rows_LE, limit_L - fixed, per_read, per_row)
            most_LK[:, kind] = np.minimum(most_LK[:, kind], shares_L)
    return most_LK


def _shares_on_plane(rows_LE: Floats, left_L: Floats, per_read: float, per_row: float) -> Floats:
    num_experts = rows_LE.shape[1]
    cost_LE = per_read * reads(rows_LE) + per_row * rows_LE
    total_LE = np.cumsum(cost_LE, axis=1)
    whole_L = (total_LE <= left_L[:, None]).sum(1)
    last_L1 = np.minimum(whole_L, num_experts - 1)[:, None]
    others_LE = np.take_along_axis(total_LE, last_L1, axis=1) - cost_LE
    part_LE = replica_at_most(left_L[:, None] - others_LE, per_read, per_row)
    may_LE = (np.arange(num_experts) <= last_L1) & (others_LE <= left_L[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        share_LE = np.minimum(np.where(may_LE, part_LE / rows_LE, 0.0), 1.0)
    shares_L: Floats = whole_L + np.where(
        whole_L == num_experts, 0.0, np.nan_to_num(share_LE).max(1)
    )
    return shares_L


def _planes(kinds: Kinds, kind: int) -> Iterator[tuple[float, float, float]]:
    """Planes that grow: fixed seconds, seconds per read, seconds per row."""
    planes = zip(
        kinds.fixed_KP[kind].tolist(),
        kinds.per_read_KP[kind].tolist(),
        kinds.per_row_KP[kind].tolist(),
        strict=True,
    )
    return (plane for plane in planes if np.isfinite(plane[0]) and plane[1] + plane[2] > 0)
