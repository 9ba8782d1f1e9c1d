"""The Scheduler protocol of a simulated rank: lengths and block hashes where engines have texts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from moe_placement.simulator.errors import SimulationError


class RefusedError(ValueError):
    """A request that a scheduler does not take: it could never end, or the queue is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRequest:
    """One sequence to generate, without its text.

    Attributes:
        arrival: seconds since the start.
        output_tokens: exactly as many are generated.
        blocks: hashes of the prompt's leading blocks; each stands for its block and all before
            it. The last one may be of a block that the prompt does not fill.
        block_tokens: tokens of one block.
    """

    request_id: int
    arrival: float = 0.0
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    block_tokens: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """What one rank may hold and compute at once.

    Attributes:
        num_pages: of the rank's KV cache.
        max_live: requests, running and waiting, beyond which more are refused; 0 is no limit.
        max_context: the most tokens of prompt and answer; 0 is no limit but the pages.
        tokens_per_step: tokens that a decode step yields per sequence, in the mean; above 1
            with speculation.
        decode_tokens: tokens that a decode step computes per sequence: with speculation, the
            drafted ones and one more.
    """

    num_pages: int
    page_size: int = 64
    max_tokens_per_step: int = 8192
    max_sequences: int = 256
    max_live: int = 0
    max_context: int = 0
    prefix_caching: bool = True
    tokens_per_step: float = 1.0
    decode_tokens: int = 1

    def __post_init__(self) -> None:
        for name in ("num_pages", "page_size", "max_tokens_per_step", "max_sequences"):
            if getattr(self, name) < 1:
                raise SimulationError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 1 <= self.tokens_per_step <= self.decode_tokens:
            raise SimulationError(
                f"tokens_per_step is {self.tokens_per_step:g}; a step that computes decode_tokens "
                f"{self.decode_tokens} per sequence yields 1 to {self.decode_tokens}"
            )
        if self.decode_tokens > self.max_tokens_per_step:
            raise SimulationError(
                f"decode_tokens {self.decode_tokens} are more than the {self.max_tokens_per_step} "
                "of max_tokens_per_step; not even one sequence could decode"
            )


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """A part of one sequence's tokens, computed behind the `context` that is computed already."""

    request_id: int
    num_tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one rank computes next; nothing is a step taken for the others' sake.

    Attributes:
        num_decoding: sequences that go on decoding: each had a token from the last step too.
        decode_context: tokens that they attend to, summed over them.
        preempted: requests that decoded until just now, and lost their pages.
    """

    chunks: tuple[PrefillChunk, ...] = ()
    num_decoding: int = 0
    decode_context: int = 0
    preempted: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.num_decoding and not self.chunks


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step gave.

    Attributes:
        num_decoded: sequences that had `tokens_each` more tokens each by decoding on.
        emitted: requests that had one token at the end of a prefill, the first one or the next.
        finished: requests that had their last token, of either kind.
    """

    num_decoded: int = 0
    tokens_each: int = 1
    emitted: tuple[int, ...] = ()
    finished: tuple[int, ...] = ()


class Scheduler(Protocol):
    """`schedule` and `update` take turns; `add` and `abort` may come at any time."""

    @property
    def num_waiting(self) -> int: ...

    @property
    def num_running(self) -> int: ...

    @property
    def num_preemptions(self) -> int: ...

    @property
    def num_prompt_tokens(self) -> int:
        """Of the requests admitted so far."""
        ...

    @property
    def num_cached_tokens(self) -> int:
        """How many of them were found in the prefix cache."""
        ...

    def add(self, request: SimulatedRequest, num_computed: int = 0) -> None:
        """Queue a request; another rank may have computed, and sent, its first tokens.

        Raises:
            RefusedError: the queue is full, or the request could not end even if it were alone.
        """
        ...

    def abort(self, request_id: int) -> int:
        """End a live request and return how many tokens it had generated."""
        ...

    def schedule(self) -> Step:
        """Form the next step; it is empty only where no request is live."""
        ...

    def update(self) -> Outcome:
        """Take the last step as computed."""
        ...


MakeScheduler = Callable[[SchedulerLimits], Scheduler]
