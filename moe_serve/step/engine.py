"""One rank's engine: scheduler, runner and sampler around one step."""

from moe_serve.errors import RequestError
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.step.runner import Runner
from moe_serve.step.sampler import Sampler
from moe_serve.step.timing import TimedDispatcher, Timer
from moe_serve.types import RankStats, Request, TokenEvent


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

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RequestError: it can never be served: too long, or with ids beyond the vocabulary.
            OverloadedError: not now.
        """
        self.check(request)
        self._scheduler.add(request)
        self._sampler.add(request)

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

    def step(self) -> list[TokenEvent]:
        """Compute one step; the tokens it gave, with a finish reason where one ended."""
        self._timer.start()
        batch = self._scheduler.schedule()
        self._timer.lap("schedule")
        logits_SV = self._runner.run(batch)
        request_ids = [chunk.request_id for chunk in batch.chunks if chunk.samples]
        output = self._sampler.sample(request_ids, logits_SV)
        self._timer.lap("sample")
        events = self._scheduler.update(output)
        for event in events:
            if event.finish_reason is not None:
                self._sampler.forget(event.request_id)
        self._num_steps += 1
        self._timer.lap("schedule")
        return events

    def stats(self) -> RankStats:
        scheduler = self._scheduler
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
            step_seconds=dict(self._timer.seconds),
        )
