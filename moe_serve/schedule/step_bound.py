"""How many tokens a step may have to take no longer than it should, asked anew where that may have
changed: steps may be shorter than a hundred times what asking takes."""

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.schedule.step_cost import StepCost, StepWork
from moe_serve.types import Batch

# That the same sequences decode on, after one of which nobody was left out.
_MOST_STEPS = 16


class StepBound:
    """Of the steps that one scheduler forms."""

    def __init__(self, scheduler: Scheduler, cost: StepCost) -> None:
        self._scheduler = scheduler
        self._cost = cost
        self._steps_left = self._num_started = 0
        self._is_asked = False

    def max_tokens(self, seconds: float) -> int | None:
        """Of the next step; None where all that run decode on, as in the steps before."""
        scheduler = self._scheduler
        num_started = scheduler.num_started
        is_same = num_started == self._num_started and not scheduler.num_waiting
        self._is_asked = not is_same or self._steps_left == 0
        if not self._is_asked:
            self._steps_left -= 1
            return None
        decoding, prompt_start = scheduler.outlook()
        max_tokens = self._cost.tokens_within(seconds, decoding, prompt_start)
        all_decode = decoding.num_decoding == scheduler.num_running <= max_tokens
        self._steps_left = _MOST_STEPS if all_decode and self._cost.knows_decoding else 0
        self._num_started = num_started
        return max_tokens

    def wants(self, batch: Batch) -> bool:
        """Whether to observe the step that the last answer was for."""
        return self._is_asked and self._cost.wants(batch)

    def observe(self, batch: Batch, seconds: float) -> None:
        """Learn from a step that took so long: above 0."""
        self._cost.observe(StepWork.of(batch), seconds)
