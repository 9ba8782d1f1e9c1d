"""What the front end knows of the deployment, what it asks the solver about it, and the answer."""

from dataclasses import dataclass

from moe_placement.memory.rank_memory import RankMemory
from moe_placement.plan import LayerPlan, Plan

from moe_serve.config.tree import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedDeployment:
    """What runs when the server becomes ready.

    Attributes:
        config: resolved.
        memories: by plan rank.
        reasons: why an automatic plan is what it is.
    """

    config: Config
    plan: Plan
    memories: tuple[RankMemory, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadQuestion:
    """Is there a better plan for one EP group, now that this is its load?

    Attributes:
        plan: in force.
        lost: plan ranks that are not there; they get nothing.
        counts_LE: rows of each expert of each MoE layer; int64, little-endian.
        num_steps: of the group, in which these were counted.
        row_seconds: that a rank took for each row, where nothing is known of the hardware.
        bytes_per_second: at which a rank loads experts beside its steps.
    """

    plan: Plan
    lost: tuple[int, ...] = ()
    group: int
    counts_LE: bytes
    num_steps: int
    row_seconds: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rearrangement:
    """Attributes:
    stages: layers to change, one stage after the other, each a sound plan with what the others
        left; none where the plan stays.
    reason: one sentence.
    num_bytes: of experts that all ranks load together.
    """

    stages: tuple[dict[int, LayerPlan], ...]
    reason: str
    num_bytes: int = 0
