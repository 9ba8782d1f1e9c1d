"""What the front end and the ranks tell each other: small, frozen, without torch."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from moe_placement.plan import Plan

from moe_serve.config.tree import ModelConfig
from moe_serve.types import Request, ServedModel, TokenEvent

ALL_RANKS = -1

# Of a model, whatever else is served; of the room that is left now; or of a rank, by its own log.
Fault = Literal["model", "room", "rank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStats:
    """What one tenant has used of one rank, and holds there.

    Attributes:
        model: its name.
        seconds: of the device's time since the tenant came.
        lifetime: seconds since the tenant came.
        memory: bytes by part: weights, working space, and pages held of the KV cache.
        num_tokens: prompt tokens admitted and tokens generated.
    """

    tenant: int
    model: str
    seconds: float
    lifetime: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)
    num_waiting: int = 0
    num_running: int = 0
    num_tokens: int = 0
    num_preemptions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStats:
    """One rank's counters and gauges since it started, sent to the front end.

    Attributes:
        num_cached_tokens: prompt tokens served from the prefix cache.
        num_expert_rows: (token, expert) rows this rank computed.
        dispatch_bytes: bytes sent to other ranks by dispatch and combine.
        link_bytes: of these, bytes sent to other pools; by `from>to`, names of pools.
        num_handovers: prompts whose keys and values another rank computed for this one.
        num_handover_failures: prompts that this rank computed because such a handover failed.
        kv_bytes_sent: keys and values handed over to other ranks.
        num_segments: parts of steps that had a declared time, on an emulated device.
        num_overruns: those of them that took longer.
        step_seconds: total seconds by part: schedule, inputs, dense (all of the model but what
            follows), dispatch, counting, experts, sample; bounding, where steps may take so long
            and no longer; moves, where experts came beside steps.
        plan_epoch: of the plan that the rank runs.
        given_up_epoch: of the newest plan that could not be made ready; 0 where there is none.
        num_experts_to_load: that the plan on its way still wants.
        moved_bytes: of experts read since the start.
        slices: of each tenant on the rank, where there are several.
    """

    plan_rank: int
    num_waiting: int = 0
    num_running: int = 0
    num_pages: int = 0
    num_pages_used: int = 0
    num_pages_cached: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    num_expert_rows: int = 0
    dispatch_bytes: int = 0
    link_bytes: dict[str, int] = field(default_factory=dict)
    num_handovers: int = 0
    num_handover_failures: int = 0
    kv_bytes_sent: int = 0
    num_segments: int = 0
    num_overruns: int = 0
    step_seconds: dict[str, float] = field(default_factory=dict)
    plan_epoch: int = 0
    given_up_epoch: int = 0
    num_experts_to_load: int = 0
    moved_bytes: int = 0
    slices: tuple[SliceStats, ...] = ()

    def __add__(self, other: "RankStats") -> "RankStats":
        """Of two engines on this rank together."""
        sums = {
            each.name: _sum(getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)
            if each.name != "plan_rank"
        }
        return RankStats(plan_rank=self.plan_rank, **sums)

    @property
    def counters(self) -> "RankStats":
        """What is left of an engine that is gone: counters never go back."""
        return replace(
            self, num_waiting=0, num_running=0, num_pages=0, num_pages_used=0, num_pages_cached=0
        )


def _sum(one: Any, other: Any) -> Any:
    if not isinstance(one, dict):
        return one + other
    return {key: one.get(key, 0) + other.get(key, 0) for key in one.keys() | other.keys()}


# Of the windows in which expert load is counted.
STEPS_PER_WINDOW = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertCounts:
    """Rows that the tokens of one rank sent to experts, in a part of a window of steps.

    Attributes:
        window: number of the window, from 0; the same steps on all ranks of an EP group.
        counts_LE: int64, little-endian, of each expert of each MoE layer.
    """

    window: int
    counts_LE: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChange:
    """Where experts go from a step on that the ranks of an EP group agree on.

    Attributes:
        base_epoch: of the plan that changes.
        epoch: of the changed plan.
        slots, weights: of the layers that change, as the plan has them.
    """

    base_epoch: int
    epoch: int
    slots: dict[int, tuple[tuple[int, ...], ...]]
    weights: dict[int, tuple[tuple[float, ...], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedTenant:
    """One served model and its slice of each of its ranks.

    Attributes:
        number: what ranks and front end call it.
        model: resolved.
        rank: the only plan rank that it is on, or ALL_RANKS.
        share: of time, from 0 to 1.
        memory: bytes that it may always hold.
    """

    number: int
    model: ModelConfig
    rank: int
    share: float
    memory: int

    @property
    def is_hard(self) -> bool:
        return self.model.slice.mode == "hard"

    @property
    def takes_turns(self) -> bool:
        """Not where it has processors to itself."""
        return self.model.slice.isolate == "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChange:
    """Who is served, and with which share, from a step on that the ranks agree on.

    Attributes:
        number: counts all changes of a server, from 1; one is under way at a time.
        placed: as it is to be; as it was, where it is unloaded.
        restores: takes back a resize that another rank refused, whatever is in use by now.
    """

    number: int
    kind: Literal["load", "unload", "resize"]
    placed: PlacedTenant
    restores: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantNews:
    """A rank has done its part of a change, or cannot.

    Attributes:
        error: why it cannot.
        fault: whose that is, where it cannot.
        served: of a tenant that was loaded on this rank, or changed there by a resize.
    """

    number: int
    error: str = ""
    fault: Fault = "rank"
    served: ServedModel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """From the front end to one rank. All ranks get every wake number, so that all wake.

    Attributes:
        wake: grows with every command that brings work; see `step/worker.py`.
        abort: request ids to end early.
        stop: leave the serving loop, at a step all ranks agree on.
        plan_change: make ready, and run once all ranks of the EP group can.
        tenant_change: make ready, and act on it once all ranks can.
    """

    wake: int
    submit: tuple[Request, ...] = ()
    abort: tuple[str, ...] = ()
    stop: bool = False
    plan_change: PlanChange | None = None
    tenant_change: TenantChange | None = None


@dataclass(frozen=True, slots=True)
class MembershipNews:
    """Ranks were lost or came back, and those that are there have regrouped.

    Attributes:
        epoch: of the membership.
        lost: all plan ranks that are lost by now.
        refusal: why nothing can be computed any more; empty where it can.
        links: addresses of the links of the ranks that are there, by plan rank.
        plan: that these run; without news, the one from bring-up.
    """

    epoch: int
    lost: tuple[int, ...]
    refusal: str = ""
    links: dict[int, str] = field(default_factory=dict)
    plan: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """From one rank to the front end.

    Attributes:
        asleep_since: the wake number at which this rank fell asleep, now that it has work again:
            it asks for a newer one, which wakes all ranks.
        expert_counts: since the last report that had any.
        is_last: the rank leaves its serving loop.
        news: from plan rank 0 alone.
        tenant_news: of the newest change of who is served.
    """

    plan_rank: int
    events: tuple[TokenEvent, ...] = ()
    stats: RankStats | None = None
    asleep_since: int | None = None
    expert_counts: ExpertCounts | None = None
    is_last: bool = False
    news: MembershipNews | None = None
    tenant_news: TenantNews | None = None
