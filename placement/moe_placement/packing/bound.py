"""What no packing can beat: a linear program over kinds, with dual feasible functions.

A dual feasible function maps sizes (shares of a device) so that what fits one device maps to at
most 1. What a device's slices map to is then a row that every packing keeps, and that a fractional
one may break. Martello and Toth, Discrete Applied Mathematics 28 (1990); Fekete and Schepers,
Mathematical Programming 91 (2001). Each dimension has its own rows; unlike devices each measure
sizes by what they themselves have free. Of slices that stay apart a device holds one, as if each
filled it in a dimension of its own.

Shapes: T kinds of slices, G kinds of devices, B blocks of kinds of devices, K dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy

from moe_placement.packing.kinds import Kinds
from moe_placement.packing.problem import Flags, Floats, Ints

# Of leaving out one slice, in all devices: so much that what is lost comes before what is opened.
LEFT_OUT = 1000
_ROUNDING = 1e-6
_PRECISION = 1e-9
_MOST_COLUMNS = 20_000
_MOST_BLOCKS = 16
# Most rows of functions beside those of the sizes themselves, for each block.
_MOST_ROWS = 8
_STEPS = (1, 2, 3, 4, 5)
_CUTS = ((1, 2), (1, 3), (1, 4), (1, 5), (2, 5), (1, 6), (1, 8), (1, 10))


@dataclass(frozen=True, slots=True)
class PackBound:
    """Attributes:
    unplaced: no packing leaves out fewer slices.
    opened: no packing that leaves out no more opens fewer devices.
    """

    unplaced: int = 0
    opened: int = 0

    def joined(self, other: "PackBound") -> "PackBound":
        """The stronger of both."""
        return max(self, other, key=lambda bound: (bound.unplaced, bound.opened))


def bound_of(cost: float, num_devices: int) -> PackBound:
    """What a least cost says, of `LEFT_OUT` times all devices for a slice left out and 1 for a
    device opened."""
    each = LEFT_OUT * num_devices
    unplaced = max(0, int(np.ceil((cost - num_devices) / each - _ROUNDING)))
    opened = cost * (1 - _PRECISION) - unplaced * each
    return PackBound(unplaced, max(0, int(np.ceil(opened - _ROUNDING))))


def relaxed_bound(kinds: Kinds) -> PackBound:
    """The bound of the linear program."""
    blocks = list(_blocks(kinds))
    num_T, num_B = kinds.num_T, len(blocks)
    size = len(num_T)
    may_BT = np.array([block.may_T for block in blocks])
    rows = scipy.sparse.block_diag([scipy.sparse.csr_array(block.rows_RT) for block in blocks])
    opened = scipy.sparse.block_diag([np.ones((len(block.rows_RT), 1)) for block in blocks])
    used = scipy.sparse.hstack([rows, -opened, scipy.sparse.csr_array((rows.shape[0], size))])
    placed = scipy.sparse.hstack(
        [
            *[scipy.sparse.eye_array(size)] * num_B,
            scipy.sparse.csr_array((size, num_B)),
            scipy.sparse.eye_array(size),
        ]
    )
    opens_B = np.array([block.opens for block in blocks])
    devices_B = np.array([block.num_devices for block in blocks], float)
    left_out = float(LEFT_OUT * kinds.num_devices)
    lower = np.concatenate([np.zeros(num_B * size), np.where(opens_B, 0, devices_B), [0.0] * size])
    upper = np.concatenate([(may_BT * num_T).ravel(), devices_B, num_T])
    answer = scipy.optimize.linprog(
        np.concatenate([np.zeros(num_B * size), opens_B.astype(float), np.full(size, left_out)]),
        A_ub=used,
        b_ub=np.zeros(used.shape[0]),
        A_eq=placed,
        b_eq=num_T,
        bounds=np.stack([lower, upper], axis=1),
        method="highs",
    )
    return bound_of(answer.fun, kinds.num_devices) if answer.success else PackBound()


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Kinds of devices taken for one kind that is as good as the best of them in each row."""

    rows_RT: Floats
    may_T: Flags
    num_devices: int
    opens: bool


def _blocks(kinds: Kinds) -> Iterator[_Block]:
    most = max(1, min(_MOST_BLOCKS, _MOST_COLUMNS // len(kinds.items_T)) // 2)
    share_GK = kinds.free_GK / np.maximum(kinds.free_GK.max(0), 1)
    for opens in (False, True):
        kind_X = np.flatnonzero(kinds.opens_G == opens)
        kind_X = kind_X[np.argsort(share_GK[kind_X].sum(1), kind="stable")]
        for kind_Y in np.array_split(kind_X, max(1, min(len(kind_X), most))):
            if len(kind_Y):
                yield _block(kinds, kind_Y, opens)


def _block(kinds: Kinds, kind_Y: Ints, opens: bool) -> _Block:
    each = [np.array(list(_rows(kinds.need_GTK[kind], kinds.free_GK[kind]))) for kind in kind_Y]
    rows_RT, num_dimensions = np.min(each, axis=0), kinds.free_GK.shape[1]
    worth_R = rows_RT @ kinds.num_T
    worth_R[:num_dimensions] = np.inf
    keep_R = np.argsort(-worth_R, kind="stable")[: num_dimensions + _MOST_ROWS]
    return _Block(
        rows_RT=np.vstack([rows_RT[keep_R], kinds.apart_XT()]),
        may_T=np.any(kinds.may_TG[:, kind_Y], axis=1),
        num_devices=int(kinds.num_G[kind_Y].sum()),
        opens=opens,
    )


def _rows(need_TK: Ints, free_K: Ints) -> Iterator[Floats]:
    """Sizes by dimension, then what each function makes of them; of a size above 1 it is 1."""
    sizes = [(np.minimum(need_TK[:, k], free), max(int(free), 1)) for k, free in enumerate(free_K)]
    for need_T, free in sizes:
        yield need_T / free
    for need_T, free in sizes:
        for steps in _STEPS:
            yield _in_steps(need_T, free, steps)
        for part, of in _CUTS:
            yield _cut_off(need_T, free, part, of)


def _in_steps(need_T: Ints, free: int, steps: int) -> Floats:
    """Rounded to a number of steps, but for sizes that are whole ones of one step more."""
    whole_T, rest_T = np.divmod((steps + 1) * need_T, free)
    return np.where(rest_T == 0, need_T / free, whole_T / steps)


def _cut_off(need_T: Ints, free: int, part: int, of: int) -> Floats:
    """What leaves less than a part of the device counts for all of it, less than that for none."""
    large_T = need_T * of > free * (of - part)
    small_T = need_T * of < free * part
    return np.where(large_T, 1.0, np.where(small_T, 0.0, need_T / free))
