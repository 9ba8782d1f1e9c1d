"""A rank's part of a visit: when to ask for the model that comes, and when to send it away."""

import time
from math import inf
from typing import Literal

import psutil

from moe_serve.bench.slices_job import Visit, Visitor
from moe_serve.config.tree import ModelConfig, SliceConfig
from moe_serve.messages import ALL_RANKS, PlacedTenant, TenantChange, TenantNews

_MIB = 1 << 20
_NUM_CHANGES = 2
# What a model held that has gone is freed beside the steps of others.
_FREED_SECONDS = 0.5


class Visiting:
    """
    Args:
        visitor: None where nobody comes.
        begun: the run's begin.
        visit: written down here.
    """

    def __init__(self, visitor: Visitor | None, begun: float, visit: Visit) -> None:
        self._visitor = visitor
        self._visit = visit
        self._process = psutil.Process()
        self._num_asked = 0
        self._due = inf if visitor is None else begun + visitor.at
        self._freed_at = inf

    @property
    def is_over(self) -> bool:
        is_done = len(self._visit.resident) == 2 * _NUM_CHANGES
        return self._visitor is None or is_done or bool(self._visit.error)

    def change(self, now: float) -> TenantChange | None:
        """What is due now, once."""
        if now >= self._freed_at:
            self._freed_at = inf
            self._weigh()
        if self._visitor is None or now < self._due:
            return None
        self._due = inf
        self._num_asked += 1
        self._visit.times.append(now)
        self._weigh()
        kind: Literal["load", "unload"] = "load" if self._num_asked == 1 else "unload"
        return TenantChange(number=self._num_asked, kind=kind, placed=_placed(self._visitor))

    def hear(self, news: TenantNews) -> None:
        assert self._visitor is not None
        now = time.perf_counter()
        self._visit.times.append(now)
        self._visit.error = news.error
        if self._num_asked < _NUM_CHANGES:
            self._weigh()
            self._due = now + self._visitor.stays
        else:
            self._freed_at = now + _FREED_SECONDS

    def _weigh(self) -> None:
        self._visit.resident.append(self._process.memory_info().rss)


def _placed(visitor: Visitor) -> PlacedTenant:
    model = ModelConfig(
        path=visitor.path,
        name=f"visitor-{visitor.number}",
        dtype="float32",
        slice=SliceConfig(compute_percent=visitor.percent, memory_mb=visitor.memory_mb),
    )
    return PlacedTenant(
        number=visitor.number,
        model=model,
        rank=ALL_RANKS,
        share=visitor.percent / 100,
        memory=visitor.memory_mb * _MIB,
    )
