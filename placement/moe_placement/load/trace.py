"""Expert load: how many tokens each expert of each MoE layer got, window by window."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LoadError(ValueError):
    """A record of expert load that contradicts itself, its file, or what is asked of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLoad:
    """Token counts as a router gave them out.

    Shapes: T windows of `steps_per_window` steps, L MoE layers, E experts, N source ranks.

    Attributes:
        model: the model's name.
        layers: the model's own number of each MoE layer, growing.
        counts_TLE: rows (token, expert) that an expert got in a window.
        steps_per_window: steps whose counts one window adds up.
        coactivation_LEE: tokens that chose both of two experts, over all windows; symmetric.
        source_LNE: rows that the tokens of one rank sent to an expert, over all windows.
    """

    model: str
    layers: tuple[int, ...]
    counts_TLE: Ints
    steps_per_window: int
    coactivation_LEE: Ints | None = None
    source_LNE: Ints | None = None

    def __post_init__(self) -> None:
        """Raise LoadError, naming array and layer, unless shapes and counts make sense."""
        if self.counts_TLE.ndim != 3 or 0 in self.counts_TLE.shape:
            raise LoadError(
                f"counts_TLE has shape {self.counts_TLE.shape}; it needs windows, layers and "
                "experts, at least one of each"
            )
        if self.steps_per_window < 1:
            raise LoadError(f"steps_per_window is {self.steps_per_window}; it must be above 0")
        _check_layers(self.layers, self.num_layers)
        _check_counts(self.layers, self.counts_TLE)
        pairs = (self.num_layers, self.num_experts, self.num_experts)
        _check_shape("coactivation_LEE", self.coactivation_LEE, pairs)
        _check_symmetry(self.layers, self.coactivation_LEE)
        sources = (self.num_layers, -1, self.num_experts)
        _check_shape("source_LNE", self.source_LNE, sources)

    @property
    def num_windows(self) -> int:
        return len(self.counts_TLE)

    @property
    def num_layers(self) -> int:
        return int(self.counts_TLE.shape[1])

    @property
    def num_experts(self) -> int:
        return int(self.counts_TLE.shape[2])

    @property
    def shares(self) -> Floats:
        """The share of a layer's rows that each expert got over all windows; sums to 1."""
        counts_LE = self.counts_TLE.sum(axis=0, dtype=np.float64)
        shares_LE: Floats = counts_LE / counts_LE.sum(axis=1, keepdims=True)
        return shares_LE

    def rows_LE(self, num_tokens: float, top_k: int) -> Floats:
        """Rows that each expert gets, in the mean, of a step with so many tokens.

        Raises:
            LoadError: a token cannot choose that many experts.
        """
        if not 1 <= top_k <= self.num_experts:
            raise LoadError(f"top_k is {top_k}; it must be 1 to {self.num_experts}, the experts")
        return self.shares * (num_tokens * top_k)

    def window(self, start: int, stop: int) -> "ExpertLoad":
        """The record of windows `start` to `stop` alone; arrays without time stay whole.

        Raises:
            LoadError: there are no such windows, or no tokens in them.
        """
        if not 0 <= start < stop <= self.num_windows:
            raise LoadError(f"windows {start}..{stop} are not within 0..{self.num_windows}")
        return replace(self, counts_TLE=self.counts_TLE[start:stop])

    def expert_imbalance(self) -> Floats:
        """The most loaded expert's rows over the mean expert's, 1 where all are alike."""
        imbalance_L: Floats = self.shares.max(axis=1) * self.num_experts
        return imbalance_L

    def rank_imbalance(self, num_ranks: int) -> Floats:
        """The same for ranks that hold equal runs of experts in order.

        Raises:
            LoadError: the experts do not split evenly.
        """
        if num_ranks < 1 or self.num_experts % num_ranks:
            raise LoadError(f"{self.num_experts} experts do not split evenly over {num_ranks}")
        share_LN = self.shares.reshape(self.num_layers, num_ranks, -1).sum(axis=2)
        imbalance_L: Floats = share_LN.max(axis=1) * num_ranks
        return imbalance_L


def _check_layers(layers: tuple[int, ...], num_layers: int) -> None:
    if len(layers) != num_layers:
        raise LoadError(f"counts_TLE has {num_layers} layers but {len(layers)} layer numbers")
    if list(layers) != sorted(set(layers)) or layers[0] < 0:
        raise LoadError(f"layers are {list(layers)}; they must grow, from 0 at the least")


def _check_counts(layers: tuple[int, ...], counts_TLE: Ints) -> None:
    if counts_TLE.min() < 0:
        raise LoadError(f"counts_TLE holds {counts_TLE.min()}; counts must be 0 or above")
    totals_L = counts_TLE.sum(axis=(0, 2))
    if not totals_L.all():
        idle = layers[int(totals_L.argmin())]
        raise LoadError(f"layer {idle} has no tokens in any window; record while requests run")


def _check_shape(name: str, array: Ints | None, shape: tuple[int, ...]) -> None:
    """`shape` has -1 where any size is right."""
    if array is None:
        return
    if array.ndim != len(shape) or any(
        want not in (-1, size) for size, want in zip(array.shape, shape, strict=True)
    ):
        wanted = tuple("any" if size == -1 else size for size in shape)
        raise LoadError(f"{name} has shape {array.shape}; counts_TLE asks for {wanted}")
    if array.size and array.min() < 0:
        raise LoadError(f"{name} holds {array.min()}; counts must be 0 or above")


def _check_symmetry(layers: tuple[int, ...], pairs_LEE: Ints | None) -> None:
    if pairs_LEE is None:
        return
    is_symmetric_L = (pairs_LEE == pairs_LEE.swapaxes(1, 2)).all(axis=(1, 2))
    if not is_symmetric_L.all():
        layer = layers[int(is_symmetric_L.argmin())]
        raise LoadError(
            f"coactivation_LEE is not symmetric in layer {layer}; count each pair both ways"
        )
