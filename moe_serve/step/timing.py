"""Where a step's seconds go."""

import time
from collections import defaultdict

import torch
from moe_comm.dispatcher import Dispatcher, ExpertRows, Handle, PendingCombine, PendingDispatch


class Timer:
    """Adds up wall seconds by part; `lap` charges the time since the last lap or `start`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def start(self) -> None:
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now


class TimedDispatcher:
    """A Dispatcher that charges `dispatch` with its own time and `experts` with the time between
    rows coming in and going out; on a device that runs ahead of the host these are host times."""

    def __init__(self, inner: Dispatcher, timer: Timer) -> None:
        self._inner = inner
        self._timer = timer
        self.num_rows = 0

    @property
    def bytes_sent(self) -> int:
        return self._inner.bytes_sent

    def start(
        self,
        layer: int,
        x_TD: torch.Tensor,
        ids_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        keys_T: torch.Tensor,
    ) -> PendingDispatch:
        self._timer.lap("dense")
        pending = self._inner.start(layer, x_TD, ids_TK, weights_TK, keys_T)
        self._timer.lap("dispatch")
        return _TimedDispatch(pending, self)

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> PendingCombine:
        self._timer.lap("experts")
        pending = self._inner.start_combine(y_RD, handle)
        self._timer.lap("dispatch")
        return _TimedCombine(pending, self._timer)

    def finish(self, pending: PendingDispatch) -> tuple[ExpertRows, Handle]:
        self._timer.lap("dense")
        rows, handle = pending.finish()
        self._timer.lap("dispatch")
        self.num_rows += rows.rows_RD.shape[0]
        return rows, handle


class _TimedDispatch:
    def __init__(self, inner: PendingDispatch, owner: TimedDispatcher) -> None:
        self._inner = inner
        self._owner = owner

    def finish(self) -> tuple[ExpertRows, Handle]:
        return self._owner.finish(self._inner)


class _TimedCombine:
    def __init__(self, inner: PendingCombine, timer: Timer) -> None:
        self._inner = inner
        self._timer = timer

    def finish(self) -> torch.Tensor:
        self._timer.lap("dense")
        y_TD = self._inner.finish()
        self._timer.lap("dispatch")
        return y_TD
