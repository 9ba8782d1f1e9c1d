"""First packings: greedy, best fit, largest first, by several measures of fit and size.

Slices one by one onto the device that they fit best, or devices one by one filled with the slices
that fit them best: Panigrahy, Talwar, Uyeda and Wieder, Heuristics for vector bin packing (2011),
whose dot product and L2 norm these are; unlike bins as Gabay and Zaourar, Annals of Operations
Research 242 (2016). Which of them does best depends on the instance, so all are tried.

Shapes: I slices, D devices, K dimensions, X slices or devices to choose from.
"""

from collections.abc import Callable, Iterator

import numpy as np

from moe_placement.packing.layout import NOWHERE, Layout
from moe_placement.packing.problem import Flags, Floats, Ints, Problem

# How badly needs fit what is left, both weighted shares of a device: the least fits best.
Fit = Callable[[Floats, Floats], Floats]
_ENOUGH_WORK = 2_000_000
_LEAST_WEIGHT = 1e-3


def least_left(need_KX: Floats, left_KX: Floats) -> Floats:
    total_X: Floats = (left_KX - need_KX).sum(0)
    return total_X


def least_norm(need_KX: Floats, left_KX: Floats) -> Floats:
    norm_X: Floats = np.square(left_KX - need_KX).sum(0)
    return norm_X


def largest_product(need_KX: Floats, left_KX: Floats) -> Floats:
    product_X: Floats = (need_KX * left_KX).sum(0)
    return -product_X


def most_alike(need_KX: Floats, left_KX: Floats) -> Floats:
    """By the cosine between what is needed and what is left."""
    lengths_X = np.linalg.norm(need_KX, axis=0) * np.linalg.norm(left_KX, axis=0)
    unlike_X: Floats = largest_product(need_KX, left_KX) / np.maximum(lengths_X, 1e-300)
    return unlike_X


SIZES: tuple[Callable[[Floats], Floats], ...] = (
    lambda need_KI: need_KI.sum(0),
    lambda need_KI: need_KI.max(0),
    lambda need_KI: np.square(need_KI).sum(0),
)


class Seeds:
    """The greedy packings of one problem.

    Attributes:
        scale_K: what one unit weighs: its share of the mean device, times how scarce it is.
        need_KI: weighted needs on the mean device.
        size_I: their sums.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.scale_K = _scale(problem)
        self.need_KI = problem.mean_need_KI * self.scale_K[:, None]
        self.size_I = self.need_KI.sum(0)

    def layouts(self) -> Iterator[Layout]:
        """All of them; where the problem is large, one of each way."""
        large = self.problem.num_items * self.problem.num_devices > _ENOUGH_WORK
        for size in SIZES[: 1 if large else None]:
            order = np.argsort(-size(self.need_KI), kind="stable")
            for fit in (least_norm,) if large else (least_left, least_norm, most_alike):
                yield self.by_item(order, fit)
        for fit in (least_norm,) if large else (least_norm, largest_product):
            yield self.by_device(fit)
        # Where not all have room, most have it if the largest are left out.
        yield self.by_item(np.argsort(self.size_I, kind="stable"), least_norm)

    def by_item(self, order_I: Ints, fit: Fit) -> Layout:
        """Each slice goes where it fits best among open devices; where it fits none, the largest
        that it fits is opened."""
        layout = Layout.empty(self.problem)
        for item in order_I.tolist():
            fits_D = layout.fits_D(item)
            open_D = fits_D & layout.is_open_D
            if open_D.any():
                layout.put(item, self.best_device(layout, item, open_D, fit))
            elif fits_D.any():
                layout.put(item, self._largest(fits_D))
        return layout

    def best_device(self, layout: Layout, item: int, among_D: Flags, fit: Fit = least_norm) -> int:
        """The device, of some that a slice fits, that it fits best."""
        device_X = np.flatnonzero(among_D)
        need_KX = self.problem.need_KCI[:, self.problem.class_D[device_X], item]
        left_KX = layout.left_KD[:, device_X]
        scale_K1 = self.scale_K[:, None]
        return int(device_X[np.argmin(fit(need_KX * scale_K1, left_KX * scale_K1))])

    def by_device(self, fit: Fit) -> Layout:
        """Devices in use first, then the largest; each takes what fits it best until nothing
        does."""
        layout = Layout.empty(self.problem)
        size_D = self.scale_K @ self.problem.free_KD
        for device in np.lexsort((-size_D, self.problem.opens_D)).tolist():
            self._fill(layout, device, fit)
        return layout

    def _fill(self, layout: Layout, device: int, fit: Fit) -> None:
        need_KI, scale_K1 = self.problem.need_KI(device), self.scale_K[:, None]
        item_X = np.flatnonzero((layout.device_I == NOWHERE) & self.problem.may_ID[:, device])
        while True:
            left_K1 = layout.left_KD[:, device, None]
            fits_X = (need_KI[:, item_X] <= left_K1).all(0)
            item_X = item_X[fits_X & ~self._is_held(layout, item_X, device)]
            if not len(item_X):
                return
            best = int(np.argmin(fit(need_KI[:, item_X] * scale_K1, left_K1 * scale_K1)))
            layout.put(int(item_X[best]), device)
            item_X = np.delete(item_X, best)

    def _is_held(self, layout: Layout, item_X: Ints, device: int) -> Flags:
        """Whether the device holds one that a slice must be apart from."""
        if not self.problem.num_groups:
            return np.zeros(len(item_X), np.bool_)
        group_X = self.problem.apart_I[item_X]
        held_X: Flags = (group_X >= 0) & (layout.held_GD[group_X, device] > 0)
        return held_X

    def _largest(self, among_D: Flags) -> int:
        size_D = self.scale_K @ self.problem.free_KD
        return int(np.argmax(np.where(among_D, size_D, -1.0)))


def _scale(problem: Problem) -> Floats:
    mean_K = np.maximum(problem.total_KD.mean(1), 1.0)
    scarcity_K = problem.mean_need_KI.sum(1) / np.maximum(problem.free_KD.sum(1), 1.0)
    most = scarcity_K.max()
    weight_K = np.maximum(scarcity_K / most, _LEAST_WEIGHT) if most else np.ones(len(mean_K))
    scale_K: Floats = weight_K / mean_K
    return scale_K
