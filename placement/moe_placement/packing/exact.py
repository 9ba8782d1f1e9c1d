"""The best packing, proven, of few slices on few devices: one integer program.

Like slices are counted, not told apart, and of like devices the first is opened first, so that the
same packing is not looked at again under other names.

Shapes: T kinds of slices, D devices (like ones side by side), K dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy

from moe_placement.packing.bound import LEFT_OUT
from moe_placement.packing.integers import IntegerAnswer, IntegerProgram
from moe_placement.packing.kinds import Kinds
from moe_placement.packing.layout import NOWHERE, Layout
from moe_placement.packing.problem import Flags, Floats, Ints, Problem

_MOST_COLUMNS = 400
_EVEN_GAP = 1e-3


def num_columns(kinds: Kinds) -> int:
    return len(kinds.items_T) * kinds.num_devices


def few_enough(kinds: Kinds) -> bool:
    """Whether a proof takes seconds."""
    return num_columns(kinds) <= _MOST_COLUMNS


@dataclass(slots=True, eq=False)
class ExactProgram:
    """Columns: slices of each kind on each device, whether each device holds any, slices of each
    kind left out, and the largest share used.

    Attributes:
        kind_D: kind of each device.
        device_D: its number in the problem.
    """

    problem: Problem
    kinds: Kinds
    time_limit: float
    kind_D: Ints = field(init=False)
    device_D: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.kind_D = np.repeat(np.arange(len(self.kinds.devices_G)), self.kinds.num_G)
        self.device_D = np.concatenate([np.array(some) for some in self.kinds.devices_G])

    def fewest(self) -> tuple[Layout, IntegerAnswer] | None:
        """Fewest slices left out, then fewest devices opened; None where that was not found."""
        left_out = float(LEFT_OUT * len(self.device_D))
        costs = self._row(held_D=self.problem.opens_D[self.device_D], out_T=left_out)
        return self._solved(costs, [self._limits()], self.kinds.num_T)

    def evenest(self, out_T: Ints) -> tuple[Layout, IntegerAnswer] | None:
        """The least largest share used of a device that holds slices.

        Args:
            out_T: slices of each kind that are left out.
        """
        levels = scipy.optimize.LinearConstraint(np.array(list(self._levels())), ub=0)
        return self._solved(self._row(level=1), [self._limits(), levels], out_T, _EVEN_GAP)

    def _row(
        self,
        *,
        on_DT: Floats | Ints | Flags | float = 0,
        held_D: Floats | Ints | Flags | float = 0,
        out_T: Floats | Ints | Flags | float = 0,
        level: float = 0,
    ) -> Floats:
        """A figure for each column."""
        num_D, num_T = len(self.device_D), len(self.kinds.items_T)
        parts = ((on_DT, (num_D, num_T)), (held_D, (num_D,)), (out_T, (num_T,)), (level, (1,)))
        return np.concatenate([np.broadcast_to(part, shape).ravel() for part, shape in parts]) * 1.0

    def _solved(
        self,
        costs: Floats,
        limits: "list[scipy.optimize.LinearConstraint]",
        out_T: Ints,
        gap: float = 0.0,
    ) -> tuple[Layout, IntegerAnswer] | None:
        most_DT = self.kinds.most_TG().T[self.kind_D]
        bounds = scipy.optimize.Bounds(0, self._row(on_DT=most_DT, held_D=1, out_T=out_T, level=1))
        whole = self._row(on_DT=1, held_D=1, out_T=1)
        answer = IntegerProgram(costs, limits, bounds, whole, gap).solve(self.time_limit)
        if answer is None:
            return None
        layout = self._layout(answer.x[: most_DT.size].reshape(most_DT.shape))
        return (layout, answer) if layout.is_sound else None

    def _layout(self, count_DT: Ints) -> Layout:
        device_I = np.full(self.problem.num_items, NOWHERE)
        for kind, items in enumerate(self.kinds.items_T):
            devices = np.repeat(self.device_D, count_DT[:, kind])
            device_I[list(items[: len(devices)])] = devices
        return Layout.of(self.problem, device_I)

    def _limits(self) -> "scipy.optimize.LinearConstraint":
        rows = [*self._placed(), *self._room(), *self._apart(), *self._in_order()]
        lower = [low for _, low, _ in rows]
        upper = [high for _, _, high in rows]
        return scipy.optimize.LinearConstraint(np.array([row for row, _, _ in rows]), lower, upper)

    def _placed(self) -> Iterator[tuple[Floats, float, float]]:
        """Each slice is on one device or left out."""
        for kind, number in enumerate(self.kinds.num_T.tolist()):
            one_T = np.arange(len(self.kinds.items_T)) == kind
            yield self._row(on_DT=one_T, out_T=one_T), number, number

    def _room(self) -> Iterator[tuple[Floats, float, float]]:
        """No device holds more than it has."""
        for device, kind in enumerate(self.kind_D.tolist()):
            need_TK, free_K = self.kinds.in_units(kind)
            for need_T, free in zip(need_TK.T, free_K, strict=True):
                on_DT, held_D = self._of(device, need_T, -free)
                yield self._row(on_DT=on_DT, held_D=held_D), -np.inf, 0.0

    def _apart(self) -> Iterator[tuple[Floats, float, float]]:
        for is_in_T in self.kinds.apart_XT():
            for device in range(len(self.device_D)):
                on_DT, _ = self._of(device, is_in_T, 0)
                yield self._row(on_DT=on_DT), 0.0, 1.0

    def _in_order(self) -> Iterator[tuple[Floats, float, float]]:
        """Of like devices the next holds slices only where the one before does."""
        for device in np.flatnonzero(np.diff(self.kind_D) == 0).tolist():
            held_D = np.zeros(len(self.device_D))
            held_D[device : device + 2] = (1, -1)
            yield self._row(held_D=held_D), 0.0, 1.0

    def _levels(self) -> Iterator[Floats]:
        """What is used and taken of a device that holds slices is at most the largest share."""
        for device, kind in enumerate(self.kind_D.tolist()):
            total_K = self.problem.total_KD[:, self.device_D[device]]
            taken_K = total_K - self.kinds.free_GK[kind]
            for dimension in np.flatnonzero(total_K).tolist():
                share_T = self.kinds.need_GTK[kind, :, dimension] / total_K[dimension]
                taken = taken_K[dimension] / total_K[dimension]
                on_DT, held_D = self._of(device, share_T, taken)
                yield self._row(on_DT=on_DT, held_D=held_D, level=-1)

    def _of(self, device: int, on_T: Floats | Ints | Flags, held: float) -> tuple[Floats, Floats]:
        """Figures of one device alone."""
        is_this_D = np.arange(len(self.device_D)) == device
        return np.outer(is_this_D, on_T), is_this_D * float(held)
