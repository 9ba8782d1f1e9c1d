"""Where a step's seconds go, and how long an emulated device makes them last."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping

import torch
from moe_comm.dispatcher import Dispatcher, ExpertRows, Handle, PendingCombine, PendingDispatch
from moe_comm.routing import RoutingTable
from moe_devices.pacer import Pacer
from moe_devices.work import AttentionWork, ExpertsWork

from moe_serve.schedule.step_cost import attended_by
from moe_serve.step.expert_load import ExpertCounter
from moe_serve.types import Batch


class Timer:
    """Adds up wall seconds by part; `lap` charges the time since the last lap or `start`.

    Where rows leave for their experts or come back, a segment ends or begins: attention, with all
    else that is not experts, and experts. The first begins at `start`. The pacer may make a
    segment longer; that counts to the part in which it ends.

    Attributes:
        expert_seconds: of each pass through a layer's experts, one after the other; None where
            nobody asked for them.
    """

    def __init__(self, pacer: Pacer) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.expert_seconds: list[float] | None = None
        self._pacer = pacer
        self._batch = Batch()
        self._next_layer = 0
        self._last = self._begun = time.perf_counter()

    @property
    def num_segments(self) -> int:
        return sum(count.num_segments for count in self._pacer.counts.values())

    @property
    def num_overruns(self) -> int:
        return sum(count.num_overruns for count in self._pacer.counts.values())

    def start(self) -> None:
        self._last = self._begun = time.perf_counter()

    def start_model(self, batch: Batch) -> None:
        """What the attention segments from here on are about."""
        self._batch = batch
        self._next_layer = 0

    def lap(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def begin_segment(self) -> None:
        """At the last lap."""
        self._begun = self._last

    def end_attention(self, end_layer: int | None) -> None:
        """`dense` is over up to a layer, which it leaves out; None is the model's end."""
        first_layer, batch = self._next_layer, self._batch
        self._pacer.wait(self._begun, lambda: attention_work(batch, first_layer, end_layer))
        self._next_layer = end_layer or 0
        self.lap("dense")

    def end_experts(self, counts_E: torch.Tensor) -> None:
        self._pacer.wait(self._begun, lambda: ExpertsWork(tuple(counts_E.tolist())))
        before = self._last
        self.lap("experts")
        if self.expert_seconds is not None:
            self.expert_seconds.append(self._last - before)


def attention_work(batch: Batch, first_layer: int, end_layer: int | None) -> AttentionWork:
    """What a batch asks of some layers; a chunk of one token decodes, whichever token it is."""
    decoding = [chunk for chunk in batch.chunks if len(chunk.token_ids) == 1]
    prompts = [chunk for chunk in batch.chunks if len(chunk.token_ids) > 1]
    return AttentionWork(
        first_layer=first_layer,
        end_layer=end_layer,
        num_prompt_tokens=sum(len(chunk.token_ids) for chunk in prompts),
        prompt_context=attended_by(prompts),
        num_decoding=len(decoding),
        decode_context=attended_by(decoding),
    )


class TimedDispatcher:
    """A Dispatcher that charges `dispatch` with its own time, `counting` with that of the load and
    `experts` with the time between rows coming in and going out; on a device that runs ahead of
    the host these are host times.

    Args:
        load: is told where the tokens here go.
    """

    def __init__(self, inner: Dispatcher, timer: Timer, load: ExpertCounter | None = None) -> None:
        self._inner = inner
        self._timer = timer
        self._load = load
        self._counts_E = torch.zeros(0, dtype=torch.int64)
        self.num_rows = 0
        self._bytes_before = 0
        self._link_bytes_before: Counter[str] = Counter()

    def note_expert_seconds(self) -> list[float]:
        """-> a list that grows by the seconds of each pass through a layer's experts."""
        noted: list[float] = []
        self._timer.expert_seconds = noted
        return noted

    def replace(self, inner: Dispatcher) -> None:
        """Go on with another dispatcher; counts go on as well."""
        self._bytes_before = self.bytes_sent
        self._link_bytes_before = Counter(self.bytes_by_link)
        self._inner = inner

    def replace_tables(self, tables: Mapping[int, RoutingTable]) -> None:
        self._inner.replace_tables(tables)

    @property
    def bytes_sent(self) -> int:
        return self._bytes_before + self._inner.bytes_sent

    @property
    def bytes_by_link(self) -> Mapping[str, int]:
        return self._link_bytes_before + Counter(self._inner.bytes_by_link)

    def start(
        self,
        layer: int,
        x_TD: torch.Tensor,
        ids_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        keys_T: torch.Tensor,
    ) -> PendingDispatch:
        self._timer.end_attention(layer + 1)
        # Dispatchers want them on the host as well: one copy does for both.
        ids_TK = ids_TK.cpu()
        if self._load is not None:
            self._timer.lap("dispatch")
            self._load.count(layer, ids_TK)
            self._timer.lap("counting")
        pending = self._inner.start(layer, x_TD, ids_TK, weights_TK, keys_T)
        self._timer.lap("dispatch")
        return _TimedDispatch(pending, self)

    def start_combine(self, y_RD: torch.Tensor, handle: Handle) -> PendingCombine:
        self._timer.end_experts(self._counts_E)
        pending = self._inner.start_combine(y_RD, handle)
        self._timer.lap("dispatch")
        return _TimedCombine(pending, self._timer)

    def finish(self, pending: PendingDispatch) -> tuple[ExpertRows, Handle]:
        self._timer.lap("dense")
        rows, handle = pending.finish()
        self._timer.lap("dispatch")
        self._timer.begin_segment()
        self._counts_E = rows.counts_E
        self.num_rows += rows.rows_RD.shape[0]
        return rows, handle


class _TimedDispatch:
    def __init__(self, inner: PendingDispatch, owner: TimedDispatcher) -> None:
        self._inner = inner
        self._owner = owner

    def poll(self) -> None:
        self._inner.poll()

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
        self._timer.begin_segment()
        return y_TD
