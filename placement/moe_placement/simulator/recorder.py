"""Collects what happens in a simulation until it can be summed up."""

from array import array
from collections.abc import Sequence

import numpy as np

from moe_placement.simulator.live_request import LiveRequest
from moe_placement.simulator.result import QueueSample, RequestTimes
from moe_placement.simulator.worker import Worker


class Recorder:
    """Attributes:
    gaps: seconds between tokens; each came `gap_counts` times.
    num_requests: that arrived.
    num_resubmitted: times that a request lost its rank.
    """

    def __init__(self) -> None:
        self.gaps, self.gap_counts = array("d"), array("q")
        self.queues: list[QueueSample] = []
        self.num_requests = self.num_refused = self.num_resubmitted = 0
        self._ended: list[tuple[int, float, float, float, int]] = []

    @property
    def num_finished(self) -> int:
        return len(self._ended)

    def gap(self, seconds: float, num_tokens: int = 1) -> None:
        """So many tokens came each so long after the one before."""
        self.gaps.append(seconds)
        self.gap_counts.append(num_tokens)

    def end(self, live: LiveRequest, now: float) -> None:
        """A request had its last token."""
        request, first = live.request, live.first_token_at
        assert first is not None, f"request {request.request_id} ended without a token"
        times = (first - request.arrival, now - request.arrival, now - first)
        self._ended.append((request.request_id, *times, request.output_tokens))

    def sample(self, now: float, workers: Sequence[Worker]) -> None:
        """Look at the queues, pool by pool."""
        for pool in dict.fromkeys(worker.spec.pool for worker in workers):
            ranks = [rank for one in workers if one.spec.pool == pool for rank in one.ranks]
            num_waiting = sum(rank.num_waiting for rank in ranks)
            num_running = sum(rank.num_running for rank in ranks)
            self.queues.append(QueueSample(now, pool, num_waiting, num_running))

    def times(self) -> RequestTimes:
        """Of the requests that ended so far."""
        columns = np.array(self._ended, np.float64).reshape(-1, 5).T
        output_R = columns[4].astype(np.int64)
        return RequestTimes(
            request_id_R=np.array([row[0] for row in self._ended], np.int64),
            ttft_R=columns[1],
            end_to_end_R=columns[2],
            tpot_R=columns[3] / np.maximum(output_R - 1, 1),
            output_tokens_R=output_R,
        )
