"""The two orders in which engines keep the numbers of a key that turn together.

Both are permutations of one another, and a query against a key gives the same product in either
as long as both are in the same one: keys can change order on their way.
"""

import numpy as np

from moe_comm.kv.number_types import Array


def reorder(part_THd: Array, width: int, target: str) -> Array:
    """Put the first `width` numbers of each row into the order `target`, out of the other one."""
    if width == 0:
        return part_THd
    pairs = np.arange(width).reshape(-1, 2) if target == "halves" else _halves(width)
    order = [*pairs.T.reshape(-1), *range(width, part_THd.shape[-1])]
    return part_THd[..., order]


def _halves(width: int) -> Array:
    return np.arange(width).reshape(2, -1)
