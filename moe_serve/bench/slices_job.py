"""What the ranks of the slices benchmark are asked to run, and what they tell of it."""

from dataclasses import dataclass, field
from typing import Literal

ANY_RANK = -1
# What rank 0 says when the models are there.
READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Requests to one tenant, of which so many are always under way.

    Attributes:
        rank: that takes them; ANY_RANK is every rank.
    """

    tenant: int
    prompt_tokens: int
    output_tokens: int
    num_sequences: int = 1
    rank: int = ANY_RANK


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request to one tenant.

    Attributes:
        at: seconds after the run's begin.
    """

    at: float
    tenant: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A model on all ranks that comes while others are served, and goes again.

    Attributes:
        at: seconds after the run's begin at which it is asked for.
        stays: seconds from when it is there.
    """

    number: int
    path: str
    percent: int
    memory_mb: int
    at: float
    stays: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    Attributes:
        percents: of the device's time, by the tenants that are open.
        hard: those that never have more.
        seconds: that count, after `warm_up`.
        in_turn: shares say nothing: each tenant with work has a step in turn, however long.
        watches_memory: ledger and process are looked at behind each step.
        waits_for: what ends the run once its seconds are over: nothing else, all answers, or that
            a tenant has had to set a sequence back.
        patience: seconds that it waits at most.
        visitor: waited for as well, until it has gone.
    """

    percents: dict[int, float]
    seconds: float
    warm_up: float = 0.5
    hard: tuple[int, ...] = ()
    streams: tuple[Stream, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    in_turn: bool = False
    watches_memory: bool = False
    waits_for: Literal["nothing", "answers", "preemption"] = "nothing"
    patience: float = 60.0
    visitor: Visitor | None = None


@dataclass(slots=True, kw_only=True)
class Answer:
    """One request on its way.

    Attributes:
        asked: when it came, or was due.
        times: of its tokens, as the front end would get them.
    """

    tenant: int
    asked: float
    times: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    is_done: bool = False


@dataclass(slots=True, kw_only=True)
class MemorySample:
    """
    Attributes:
        at: seconds of the host's monotonic clock.
        ledger: bytes, by tenant and part.
        resident: bytes of the process.
    """

    at: float
    ledger: dict[int, dict[str, int]]
    resident: int


@dataclass(slots=True, kw_only=True)
class Visit:
    """When a visitor was asked for and came, was asked to go and went, on one rank; and bytes of
    the process before each and behind.

    Attributes:
        error: why it did not come.
    """

    times: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True, kw_only=True)
class RankLog:
    """One rank's run; times are seconds of the host's monotonic clock.

    Attributes:
        first, last: the time that counts.
        step_tenants, step_begins, step_ends: of every step, in order.
        pause_begins: of the times in which nobody had a turn.
        turns_seconds: spent on whose turn it is.
        header_seconds: spent on step headers.
        bounding_seconds: spent within steps on how many tokens they may have.
        answers: by request.
        most_held: bytes by tenant and part, where memory was watched, as are `samples`.
        base: bytes of the process before it had any model.
    """

    first: float = 0.0
    last: float = 0.0
    step_tenants: list[int] = field(default_factory=list)
    step_begins: list[float] = field(default_factory=list)
    step_ends: list[float] = field(default_factory=list)
    pause_begins: list[float] = field(default_factory=list)
    turns_seconds: float = 0.0
    header_seconds: float = 0.0
    bounding_seconds: float = 0.0
    answers: dict[str, Answer] = field(default_factory=dict)
    most_held: dict[int, dict[str, int]] = field(default_factory=dict)
    samples: list[MemorySample] = field(default_factory=list)
    num_preemptions: dict[int, int] = field(default_factory=dict)
    base: int = 0
    visit: Visit = field(default_factory=Visit)
