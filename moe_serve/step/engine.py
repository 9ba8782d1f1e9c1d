"""One rank's engine: scheduler, runner and sampler around one step."""

import time
from collections.abc import Callable, Sequence

import torch
from moe_comm.transport.exchange import PeerLostError

from moe_serve.errors import RequestError
from moe_serve.messages import RankStats
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.schedule.step_bound import StepBound
from moe_serve.schedule.step_cost import StepCost
from moe_serve.step.handover import Handover, NoHandover
from moe_serve.step.runner import Runner
from moe_serve.step.sampler import Sampler
from moe_serve.step.timing import TimedDispatcher, Timer
from moe_serve.types import Request, TokenEvent


class Engine:
    """Takes requests and gives events, a step at a time; knows nothing of other ranks.

    Every rank of an EP group calls `step` equally often; a rank without work takes part in the
    others' step with no tokens.
    """

    def __init__(
        self,
        plan_rank: int,
        scheduler: Scheduler,
        runner: Runner,
        sampler: Sampler,
        dispatcher: TimedDispatcher,
        timer: Timer,
        num_pages: int,
        vocab_size: int,
    ) -> None:
        self._plan_rank = plan_rank
        self._scheduler = scheduler
        self._runner = runner
        self._sampler = sampler
        self._dispatcher = dispatcher
        self._timer = timer
        self._num_pages = num_pages
        self._vocab_size = vocab_size
        self._num_steps = 0
        self._handover: Handover = NoHandover()
        self._bound = StepBound(scheduler, StepCost())

    def hand_over(self, make: Callable[[Scheduler], Handover]) -> None:
        """From here on, requests may be prefilled for another rank, or by one."""
        self._handover = make(self._scheduler)

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or self._handover.has_notes

    @property
    def descriptors(self) -> Sequence[int]:
        return self._handover.descriptors

    def poll(self) -> bool:
        return self._handover.poll()

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RequestError: it can never be served: too long, or with ids beyond the vocabulary. One
                that is prefilled for another rank is refused there instead.
            OverloadedError: not now.
        """
        try:
            self.check(request)
            self._scheduler.add(request)
        except RequestError as error:
            if request.decode_rank is None:
                raise
            self.give_back(request, str(error))
            return
        if request.decode_rank is None:
            self._sampler.add(request)
        self._handover.add(request)

    def give_back(self, request: Request, reason: str) -> None:
        """Have the `decode_rank` of a request compute its prompt itself."""
        self._handover.refuse(request, reason)

    def check(self, request: Request) -> None:
        """Raise the RequestError of a request that can never be served."""
        self._scheduler.check(request)
        biased = (token_id for token_id, _ in request.sampling.logit_bias)
        token_ids = (*request.prompt_ids, *request.sampling.stop_token_ids, *biased)
        for token_id in (min(token_ids, default=0), max(token_ids, default=0)):
            if not 0 <= token_id < self._vocab_size:
                raise RequestError(f"token id {token_id} is not in 0..{self._vocab_size - 1}")

    def abort(self, request_id: str) -> TokenEvent | None:
        """End a request early; None if it has ended already."""
        self._sampler.forget(request_id)
        return self._scheduler.abort(request_id)

    def abort_all(self) -> None:
        for request_id in self._scheduler.request_ids:
            self.abort(request_id)

    def step(self, max_seconds: float | None = None) -> list[TokenEvent]:
        """Compute one step; the tokens it gave, with a finish reason where one ended.

        Where it raises PeerLostError nothing has happened: the next call computes what this one
        would have.

        Args:
            max_seconds: that the step should take at most; prompts are cut to fit.
        """
        began = time.perf_counter()
        self._timer.start()
        max_tokens = None
        if max_seconds is not None:
            max_tokens = self._bound.max_tokens(max_seconds)
            self._timer.lap("bounding")
        batch = self._scheduler.schedule(max_tokens)
        self._handover.begin_step()
        self._timer.lap("schedule")
        try:
            logits_SV = self._runner.run(batch, self._handover)
        except PeerLostError:
            self._scheduler.cancel()
            raise
        request_ids = [chunk.request_id for chunk in batch.chunks if chunk.samples]
        output = self._sampler.sample(request_ids, logits_SV)
        if not request_ids:
            _wait_for(logits_SV.device)
        self._timer.lap("sample")
        events = self._scheduler.update(output)
        for event in events:
            if event.finish_reason is not None:
                self._sampler.forget(event.request_id)
        self._num_steps += 1
        self._timer.lap("schedule")
        if max_seconds is not None and self._bound.wants(batch):
            self._bound.observe(batch, time.perf_counter() - began)
            self._timer.lap("bounding")
        return events

    def stats(self) -> RankStats:
        scheduler, handover = self._scheduler, self._handover.counts
        return RankStats(
            plan_rank=self._plan_rank,
            num_waiting=scheduler.num_waiting,
            num_running=scheduler.num_running,
            num_pages=self._num_pages,
            num_pages_used=scheduler.num_pages_used,
            num_pages_cached=scheduler.num_pages_cached,
            num_prompt_tokens=scheduler.num_prompt_tokens,
            num_cached_tokens=scheduler.num_cached_tokens,
            num_generated_tokens=scheduler.num_generated_tokens,
            num_preemptions=scheduler.num_preemptions,
            num_steps=self._num_steps,
            num_expert_rows=self._dispatcher.num_rows,
            dispatch_bytes=self._dispatcher.bytes_sent,
            link_bytes=dict(self._dispatcher.bytes_by_link),
            num_handovers=handover.num_handovers,
            num_handover_failures=handover.num_failures,
            kv_bytes_sent=handover.bytes_sent,
            num_segments=self._timer.num_segments,
            num_overruns=self._timer.num_overruns,
            step_seconds=dict(self._timer.seconds),
        )


def _wait_for(device: torch.device) -> None:
    """Until it has done what this thread has queued, as sampled tokens wait for it: a step that
    were over before its work is would be charged to whoever has the next turn."""
    if device.type != "cpu":
        torch.accelerator.current_stream(device).synchronize()
