"""One attention group of a simulated worker: its scheduler, and whom it serves."""

from moe_placement.simulator.scheduler import (
    MakeScheduler,
    Outcome,
    SchedulerLimits,
    SimulatedRequest,
    Step,
)

_NOTHING = Step()


class Rank:
    """Attributes:
    last_end: seconds at which its last step ended.
    live: ids of the requests it holds.
    """

    def __init__(self, make_scheduler: MakeScheduler, limits: SchedulerLimits) -> None:
        self._make_scheduler = make_scheduler
        self._limits = limits
        self._scheduler = make_scheduler(limits)
        self._is_scheduled = False
        self._lost = [0, 0, 0]
        self.last_end = 0.0
        self.live: dict[int, None] = {}

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def counts(self) -> tuple[int, int, int]:
        """Preemptions, prompt tokens, and those of them found in the cache, since the start."""
        scheduler, lost = self._scheduler, self._lost
        return (
            lost[0] + scheduler.num_preemptions,
            lost[1] + scheduler.num_prompt_tokens,
            lost[2] + scheduler.num_cached_tokens,
        )

    def add(self, request: SimulatedRequest, num_computed: int) -> None:
        """Queue a request; RefusedError as the scheduler's."""
        self._scheduler.add(request, num_computed)
        self.live[request.request_id] = None

    def schedule(self) -> Step:
        if not self.live:
            return _NOTHING
        self._is_scheduled = True
        return self._scheduler.schedule()

    def update(self) -> Outcome | None:
        """What the last step gave; None where this rank had none."""
        if not self._is_scheduled:
            return None
        self._is_scheduled = False
        outcome = self._scheduler.update()
        for request_id in outcome.finished:
            del self.live[request_id]
        return outcome

    def die(self) -> dict[int, int]:
        """Lose everything; the tokens that each live request had generated here, by id."""
        num_generated = {one: self._scheduler.abort(one) for one in self.live}
        self._lost = list(self.counts)
        self._scheduler = self._make_scheduler(self._limits)
        self._is_scheduled = False
        self.live.clear()
        return num_generated
