"""One rank's engine of a model that embeds texts or scores pairs of them."""

import time
from collections import defaultdict

import torch

from moe_serve.encoders.cost import StepCost
from moe_serve.encoders.encoder import Encoder
from moe_serve.encoders.shape import EncoderShape
from moe_serve.encoders.waiting import Fits, WaitingInputs
from moe_serve.errors import OverloadedError, RequestError
from moe_serve.messages import RankStats
from moe_serve.types import Request, TokenEvent


class EncoderEngine:
    """A RankEngine without a KV cache: an input is computed whole, in one step, and gives one
    event. It knows nothing of other ranks.

    Args:
        cost: learns what steps take.
        max_tokens_per_step: padding included; a longer input is computed alone.
        max_live: requests beyond which `add` raises OverloadedError.
    """

    descriptors = ()

    def __init__(
        self,
        plan_rank: int,
        encoder: Encoder,
        shape: EncoderShape,
        cost: StepCost,
        max_tokens_per_step: int,
        max_live: int,
    ) -> None:
        self._plan_rank = plan_rank
        self._encoder = encoder
        self._shape = shape
        self._max_tokens_per_step = max_tokens_per_step
        self._max_live = max_live
        self._requests: dict[str, Request] = {}
        self._waiting = WaitingInputs()
        self._cost = cost
        self._num_prompt_tokens = 0
        self._num_steps = 0
        self._seconds: dict[str, float] = defaultdict(float)

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    def poll(self) -> bool:
        return False

    def check(self, request: Request) -> None:
        """Raise the RequestError of a request that can never be served."""
        count, most = len(request.prompt_ids), self._shape.context_length
        if count == 0:
            raise RequestError("the input has 0 tokens; give at least 1", "input")
        if count > most:
            raise RequestError(
                f"the input has {count} tokens, this model takes {most}; shorten or truncate it",
                "input",
            )
        for token_id in (min(request.prompt_ids), max(request.prompt_ids)):
            if not 0 <= token_id < self._shape.vocab_size:
                raise RequestError(
                    f"token id {token_id} is not in 0..{self._shape.vocab_size - 1}", "input"
                )
        if request.decode_rank is not None:
            raise RequestError("an encoder computes no prompts for other ranks")

    def add(self, request: Request) -> None:
        """Queue a request; RequestError or OverloadedError where it is refused."""
        self.check(request)
        if len(self._requests) >= self._max_live and not request.was_admitted:
            raise OverloadedError(
                f"{len(self._requests)} requests wait on this rank, {self._max_live} may; "
                "try again later, or raise scheduler.max_waiting"
            )
        assert request.request_id not in self._requests, f"request {request.request_id} is live"
        self._requests[request.request_id] = request
        self._waiting.add(request.request_id, len(request.prompt_ids))

    def give_back(self, request: Request, reason: str) -> None:
        """Nobody waits: an encoder computes nothing for other ranks."""

    def abort(self, request_id: str) -> TokenEvent | None:
        """End a request early; None if it has ended already."""
        if self._requests.pop(request_id, None) is None:
            return None
        self._waiting.remove(request_id)
        return TokenEvent(request_id, 0, None, finish_reason="abort")

    def abort_all(self) -> None:
        for request_id in list(self._requests):
            self.abort(request_id)

    def step(self, max_seconds: float | None = None) -> list[TokenEvent]:
        """Encode the next batch: one event for each of its requests.

        Args:
            max_seconds: that the step is expected to take at most; one input is always encoded.
        """
        started = time.perf_counter()
        names = self._waiting.take(self._limit(max_seconds))
        if not names:
            return []
        batch = [self._requests.pop(name) for name in names]
        inputs = self._encoder.inputs(batch)
        made = time.perf_counter()
        values_BV = self._encoder.run(inputs)
        ended = time.perf_counter()
        self._cost.learn(self._shape.work(*inputs.ids_BL.shape), ended - started)
        self._seconds["inputs"] += made - started
        self._seconds["dense"] += ended - made
        self._num_prompt_tokens += sum(len(request.prompt_ids) for request in batch)
        self._num_steps += 1
        is_finite_B = values_BV.isfinite().all(1).tolist()
        return [
            _answer(request, values_V) if is_finite else _overflow(request)
            for request, values_V, is_finite in zip(batch, values_BV, is_finite_B, strict=True)
        ]

    def stats(self) -> RankStats:
        return RankStats(
            plan_rank=self._plan_rank,
            num_waiting=len(self._requests),
            num_prompt_tokens=self._num_prompt_tokens,
            num_steps=self._num_steps,
            step_seconds=dict(self._seconds),
        )

    def _limit(self, max_seconds: float | None) -> Fits:
        def fits(num_inputs: int, length: int) -> bool:
            if num_inputs * length > self._max_tokens_per_step:
                return False
            work = self._shape.work(num_inputs, length)
            return max_seconds is None or self._cost.seconds(work) <= max_seconds

        return fits


def _answer(request: Request, values_V: torch.Tensor) -> TokenEvent:
    values = values_V.numpy().astype("<f4").tobytes()
    return TokenEvent(request.request_id, 0, None, finish_reason="stop", values=values)


def _overflow(request: Request) -> TokenEvent:
    return TokenEvent(
        request.request_id,
        0,
        None,
        finish_reason="error",
        error="the model's numbers left the range of its dtype; set models[].dtype to float32",
        error_kind="engine",
    )
