"""Messages between the hops of a request's life: small, frozen, without torch.

Request -> (scheduler) -> Batch -> (runner) -> StepOutput -> (scheduler) -> TokenEvent.
"""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error"]
ErrorKind = Literal["", "request", "overloaded", "unloaded", "engine"]
Task = Literal["generate", "embed", "rerank"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One tenant as the edge sees it.

    Attributes:
        name: the `model` that requests name.
        path: checkpoint directory, for tokenizer and chat template.
        context_length: the most tokens of prompt and answer together.
        vocab_size: token ids are below this.
        end_token_ids: the ids that end a sequence (generation_config.json, else config.json).
        task: what the model does: generate text, embed texts, or score pairs of them (rerank).
        embedding_width: of an embedding; 0 where the task is another one.
    """

    name: str
    path: str
    context_length: int
    vocab_size: int
    end_token_ids: tuple[int, ...]
    task: Task = "generate"
    embedding_width: int = 0


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
        was_admitted: by a rank that was lost: however many others wait, this one goes on.
        second_start: where an encoder is given a pair of texts, the index in `prompt_ids` at which
            the second one begins; None where there is one text.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    tenant: int = 0
    end_token_ids: tuple[int, ...] = ()
    prefill_rank: int | None = None
    decode_rank: int | None = None
    generated_ids: tuple[int, ...] = ()
    was_admitted: bool = False
    second_start: int | None = None


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
            succeed later), its model's, which was unloaded, or the engine's.
        values: float32, little-endian: what an encoder made of the request, an embedding or a
            score; empty where tokens are generated.
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
    values: bytes = b""
