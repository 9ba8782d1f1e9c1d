"""The expert load of a run as the front end adds it up from what the ranks count.

Shapes: L MoE layers, E experts, T windows.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from moe_placement.load.trace import ExpertLoad, Ints
from moe_placement.plan import Plan

from moe_serve.messages import STEPS_PER_WINDOW, ExpertCounts

_MOST_WINDOWS = 256
_LATE_WINDOWS = 8


class ExpertLoadRecord:
    """Bounded in memory however long the run: when windows are too many, each two become one."""

    def __init__(self, plan: Plan) -> None:
        self._model = plan.model
        self._layers = tuple(sorted(plan.layers))
        self._shape = (len(self._layers), plan.num_experts)
        self._group_of_rank = {
            rank: group for group, ranks in plan.ep_groups().items() for rank in ranks
        }
        self._windows: defaultdict[int, Ints] = defaultdict(self._nothing)
        self._totals: defaultdict[int, Ints] = defaultdict(self._nothing)
        self._widening = 1
        # Of ranks that came back, whose windows begin with 0 again.
        self._first_windows: dict[int, int] = {}

    def add(self, rank: int, counts: ExpertCounts) -> None:
        counts_LE = np.frombuffer(counts.counts_LE, "<i8").reshape(self._shape)
        self._totals[self._group_of_rank[rank]] += counts_LE
        window = self._first_windows.get(rank, 0) + counts.window
        self._windows[window // self._widening] += counts_LE
        while max(self._windows) >= _MOST_WINDOWS:
            self._widen()

    def restart(self, rank: int) -> None:
        """A rank has come back: its first window is the newest one by now."""
        self._first_windows[rank] = max(self._windows, default=0) * self._widening

    def total_LE(self, group: int) -> Ints:
        """Rows of one EP group since the start."""
        return self._totals[group].copy()

    def trace(self) -> ExpertLoad | None:
        """The run so far, all EP groups together; None before its first tokens."""
        if not self._windows:
            return None
        windows = [self._window(number) for number in range(max(self._windows) + 1)]
        return ExpertLoad(
            model=self._model,
            layers=self._layers,
            counts_TLE=np.stack(windows),
            steps_per_window=STEPS_PER_WINDOW * self._widening,
        )

    def late_LE(self) -> Ints:
        """Rows of the newest windows, all EP groups together."""
        newest = max(self._windows, default=0)
        late: Sequence[Ints] = [self._window(newest - age) for age in range(_LATE_WINDOWS)]
        total_LE: Ints = np.sum(late, axis=0)
        return total_LE

    def _window(self, number: int) -> Ints:
        return self._windows[number] if number in self._windows else self._nothing()

    def _widen(self) -> None:
        self._widening *= 2
        narrow, self._windows = self._windows, defaultdict(self._nothing)
        for number, counts_LE in narrow.items():
            self._windows[number // 2] += counts_LE

    def _nothing(self) -> Ints:
        return np.zeros(self._shape, np.int64)
