"""What the solver answers: a plan, why it is so, what binds, and how far from the bound it is."""

from dataclasses import dataclass

from moe_placement.memory.rank_memory import RankMemory
from moe_placement.plan import Plan
from moe_placement.serving.workload import Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One decision, as in ("phases", "together", "apart is 12 % slower: ...")."""

    subject: str
    chosen: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A plan that was considered.

    Attributes:
        name: short, as in `together tp1 dp16 ep16`.
        loses_because: one clause with a figure; empty for the best one.
        curve: the same deployment from light load to all that it serves within the objective.
        cost_per_hour: None where a price is missing.
    """

    name: str
    num_devices: int
    prediction: Prediction
    meets_objective: bool
    cost_per_hour: float | None = None
    loses_because: str = ""
    curve: tuple[Prediction, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Attributes:
    step_seconds: of the slowest rank, by the true cost, at the workload's decode step.
    lower_bound: that no placement on these pools can beat.
    binding: the constraint that binds: memory, expert bytes, tokens, a link, a slot count.
    alternatives: the best few, best first; the plan is of the first.
    """

    plan: Plan
    prediction: Prediction
    step_seconds: float
    lower_bound: float
    binding: str
    choices: tuple[Choice, ...]
    alternatives: tuple[Alternative, ...]
    memories: tuple[RankMemory, ...]

    @property
    def gap(self) -> float:
        """How much slower than the bound, as a share of it."""
        return max(0.0, self.step_seconds / self.lower_bound - 1.0)
