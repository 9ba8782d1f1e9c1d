"""The engine of a rank that never has requests of its own."""

from collections.abc import Sequence

from moe_serve.errors import RequestError
from moe_serve.messages import RankStats
from moe_serve.step.handover import HandoverPart, NoHandover
from moe_serve.step.runner import Runner
from moe_serve.step.timing import TimedDispatcher, Timer
from moe_serve.types import Batch, Request, TokenEvent


class Follower:
    """Takes part in the others' steps: as a member of an attention group, whose leader says what
    to compute, or with experts alone and no tokens."""

    def __init__(
        self, plan_rank: int, runner: Runner, dispatcher: TimedDispatcher, timer: Timer
    ) -> None:
        self._plan_rank = plan_rank
        self._runner = runner
        self._dispatcher = dispatcher
        self._timer = timer
        self._num_steps = 0
        self._handover: HandoverPart = NoHandover()

    def hand_over(self, part: HandoverPart) -> None:
        """From here on, take part in the handovers of the leader's requests."""
        self._handover = part

    @property
    def has_work(self) -> bool:
        """Whether the leader must hear something."""
        return self._handover.has_notes

    @property
    def descriptors(self) -> Sequence[int]:
        return self._handover.descriptors

    def check(self, request: Request) -> None:
        """Raise RequestError: requests are for ranks that have a scheduler."""
        raise RequestError(
            f"rank {self._plan_rank} follows other ranks and takes no requests; send this one "
            "to the leader of an attention group"
        )

    def add(self, request: Request) -> None:
        self.check(request)

    def give_back(self, request: Request, reason: str) -> None:
        self.check(request)

    def abort(self, request_id: str) -> TokenEvent | None:
        return None

    def abort_all(self) -> None: ...

    def poll(self) -> bool:
        return self._handover.poll()

    def step(self, max_seconds: float | None = None) -> list[TokenEvent]:
        """Compute this rank's part of one step, in which others keep to `max_seconds`."""
        self._timer.start()
        self._runner.run(Batch(), self._handover)
        self._num_steps += 1
        return []

    def stats(self) -> RankStats:
        return RankStats(
            plan_rank=self._plan_rank,
            num_steps=self._num_steps,
            num_expert_rows=self._dispatcher.num_rows,
            dispatch_bytes=self._dispatcher.bytes_sent,
            link_bytes=dict(self._dispatcher.bytes_by_link),
            kv_bytes_sent=self._handover.counts.bytes_sent,
            num_segments=self._timer.num_segments,
            num_overruns=self._timer.num_overruns,
            step_seconds=dict(self._timer.seconds),
        )
