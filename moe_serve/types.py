"""Messages between the hops of a request's life: small, frozen, without torch.

Request -> (scheduler) -> Batch -> (runner) -> StepOutput -> (scheduler) -> TokenEvent.
"""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error"]
ErrorKind = Literal["", "request", "overloaded", "engine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one sequence's next token is chosen; the defaults are OpenAI's.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 keeps every token.
        seed: the same seed gives the same tokens; None counts as 0. Who takes requests from
            outside (the HTTP edge, LLM) draws one where none was given.
        logit_bias: (token id, bias) pairs added to the logits.
        logprobs: how many top log-probabilities to report with each token; None reports none,
            0 reports the chosen token's alone.
        stop_token_ids: token ids that end the sequence, besides the model's own.
        max_tokens: the most new tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int = 16
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sequence to generate; a request with n choices is n of these.

    Attributes:
        request_id: unique among live requests.
        tenant: index of the served model.
        end_token_ids: the model's end-of-sequence ids, unless `sampling.ignore_eos`.
        prefill_rank: plan rank that computes all of the prompt but its last token, and hands its
            keys and values over; None where the rank that decodes does that itself.
        decode_rank: plan rank that this whole prompt is computed for; None in any request but the
            one that a `prefill_rank` gets.
        generated_ids: the answer's first tokens, which a rank that was lost has generated.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    tenant: int = 0
    end_token_ids: tuple[int, ...] = ()
    prefill_rank: int | None = None
    decode_rank: int | None = None
    generated_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One sequence's part of a step: `token_ids` at positions start, start + 1, ...

    Attributes:
        page_ids: the sequence's pages, in order, covering at least start + len(token_ids).
        samples: True where the last token's logits choose the next token.
    """

    request_id: str
    start: int
    token_ids: tuple[int, ...]
    page_ids: tuple[int, ...]
    samples: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """What one rank computes in one step; no chunks is a step taken for the others' sake."""

    chunks: tuple[Chunk, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(len(chunk.token_ids) for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The token that a sampling chunk chose.

    Attributes:
        logprob: of the chosen token, where asked for.
        top_logprobs: (token id, logprob), best first, where asked for.
    """

    request_id: str
    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutput:
    """One entry for each chunk with `samples`, in the batch's order."""

    tokens: tuple[SampledToken, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """News of one request on its way to the client; the last one has a finish reason.

    Attributes:
        token_id: None in an event that only ends the request (abort, error).
        index: how many tokens the request had before this one.
        num_cached_tokens: prompt tokens found in the prefix cache, when first scheduled.
        error: what went wrong, where the reason is "error".
        error_kind: whose fault that was: the request's own, a full queue's (the same request may
            succeed later), or the engine's.
    """

    request_id: str
    index: int
    token_id: int | None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0
    error: str = ""
    error_kind: ErrorKind = ""


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
            follows), dispatch, experts, sample; moves, where experts came beside steps.
        plan_epoch: of the plan that the rank runs.
        given_up_epoch: of the newest plan that could not be made ready; 0 where there is none.
        num_experts_to_load: that the plan on its way still wants.
        moved_bytes: of experts read since the start.
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
class Command:
    """From the front end to one rank. All ranks get every wake number, so that all wake.

    Attributes:
        wake: grows with every command that brings work; see `step/worker.py`.
        abort: request ids to end early.
        stop: leave the serving loop, at a step all ranks agree on.
        plan_change: make ready, and run once all ranks of the EP group can.
    """

    wake: int
    submit: tuple[Request, ...] = ()
    abort: tuple[str, ...] = ()
    stop: bool = False
    plan_change: PlanChange | None = None


@dataclass(frozen=True, slots=True)
class MembershipNews:
    """Ranks were lost or came back, and those that are there have regrouped.

    Attributes:
        epoch: of the membership.
        lost: all plan ranks that are lost by now.
        refusal: why nothing can be computed any more; empty where it can.
        links: addresses of the links of the ranks that are there, by plan rank.
    """

    epoch: int
    lost: tuple[int, ...]
    refusal: str = ""
    links: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """From one rank to the front end.

    Attributes:
        asleep_since: the wake number at which this rank fell asleep, now that it has work again:
            it asks for a newer one, which wakes all ranks.
        expert_counts: since the last report that had any.
        is_last: the rank leaves its serving loop.
        news: from plan rank 0 alone.
    """

    plan_rank: int
    events: tuple[TokenEvent, ...] = ()
    stats: RankStats | None = None
    asleep_since: int | None = None
    expert_counts: ExpertCounts | None = None
    is_last: bool = False
    news: MembershipNews | None = None
