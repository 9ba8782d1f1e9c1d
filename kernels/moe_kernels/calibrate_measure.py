"""What `moe_kernels.calibrate` times: products, memory, and experts over a grid.

Shape legend: see `moe_kernels/ops.py`.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch

from moe_kernels.ops import Experts, Linear

_MOST_REPEATS = 15
_PRODUCT_ROWS = 1024
_STREAM_ELEMENTS = 1 << 26
_EXCHANGE_BYTES = 1 << 25
_FIT_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_HELD_OUT_ROWS = (1, 3, 6, 12, 24, 48, 96, 192)


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One size of a layer: experts that have rows, and rows of each.

    Attributes:
        held_out: the fit may not see it.
    """

    experts: int
    rows: int
    held_out: bool

    @property
    def total(self) -> int:
        return self.experts * self.rows


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """One expert, and how many of them stand in memory.

    Attributes:
        dtype: of activations, and of the weights before they are packed.
        weight_format: what the weights are packed to.
    """

    hidden: int
    width: int
    count: int
    dtype: torch.dtype
    weight_format: str

    @property
    def elements(self) -> int:
        return 3 * self.hidden * self.width

    @property
    def bytes(self) -> int:
        """Of one expert as it is kept, the scales of its rows included."""
        if self.weight_format == "int8":
            return self.elements + 4 * (2 * self.width + self.hidden)
        return self.elements * self.dtype.itemsize


def grid(num_experts: int) -> list[GridPoint]:
    """Sizes to time, the small ones first; the held-out ones lie between those of the fit."""
    powers = [1 << power for power in range(num_experts.bit_length())]
    between = sorted({min(3 * power, num_experts) for power in powers})
    points = [GridPoint(count, rows, False) for count in powers for rows in _FIT_ROWS]
    points += [GridPoint(count, rows, True) for count in between for rows in _HELD_OUT_ROWS]
    return sorted(points, key=lambda point: (point.total, point.experts))


def median_seconds(call: Callable[[], object], device: torch.device, budget: float) -> float:
    """Median time of a call after one that is not counted; at least one, at most 15 repeats."""
    deadline = time.perf_counter() + budget
    _timed(call, device)
    seconds = [_timed(call, device)]
    while len(seconds) < _MOST_REPEATS and time.perf_counter() + seconds[-1] < deadline:
        seconds.append(_timed(call, device))
    return median(seconds)


def product_rate(linear: Linear, width: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a large square product."""
    weight = linear.prepare(torch.randn(width, width, dtype=dtype, device=device))
    rows = torch.randn(_PRODUCT_ROWS, width, dtype=dtype, device=device)
    seconds = median_seconds(lambda: linear(rows, weight), device, 1.0)
    return 2.0 * _PRODUCT_ROWS * width * width / seconds


def stream_rate(device: torch.device) -> float:
    """Bytes/s of reading a vector that no cache holds."""
    vector = torch.ones(_STREAM_ELEMENTS, device=device)
    seconds = median_seconds(vector.sum, device, 1.0)
    return vector.nbytes / seconds


def exchange_rate(device: torch.device) -> float:
    """Bytes/s of a copy to other memory of the host, as an exchange through it makes."""
    source = torch.ones(_EXCHANGE_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source, device="cpu", pin_memory=device.type != "cpu")
    seconds = median_seconds(lambda: target.copy_(source), device, 0.5)
    return source.nbytes / seconds


class ExpertTimer:
    """Times the experts op. Each call takes other experts, so that caches do not hold them."""

    def __init__(self, experts: Experts, shape: ExpertShape, device: torch.device) -> None:
        self._experts = experts
        self._shape = shape
        self._device = device
        gate_up_2FD = _matrix(2 * shape.width, shape.hidden, shape.dtype, device)
        down_DF = _matrix(shape.hidden, shape.width, shape.dtype, device)
        self._weights = experts.prepare(
            gate_up_2FD.repeat(shape.count, 1, 1), down_DF.repeat(shape.count, 1, 1)
        )
        self._starts = self._first_experts()

    def seconds(self, point: GridPoint, budget: float) -> float:
        """Median time of one layer of a size."""
        rows_RD = torch.randn(
            point.total, self._shape.hidden, dtype=self._shape.dtype, device=self._device
        )
        return median_seconds(lambda: self._call(rows_RD, point), self._device, budget)

    def _call(self, rows_RD: torch.Tensor, point: GridPoint) -> torch.Tensor:
        first = next(self._starts)
        chosen = (torch.arange(point.experts) * self._stride(point) + first) % self._shape.count
        counts_E = torch.zeros(self._shape.count, dtype=torch.int64)
        counts_E[chosen] = point.rows
        return self._experts(rows_RD, counts_E, self._weights)

    def _stride(self, point: GridPoint) -> int:
        return max(1, self._shape.count // point.experts)

    def _first_experts(self) -> Iterator[int]:
        first = 0
        while True:
            yield first
            first = (first + 1) % self._shape.count


def _timed(call: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _matrix(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.randn(rows, columns, device=device).div_(columns**0.5).to(dtype)
