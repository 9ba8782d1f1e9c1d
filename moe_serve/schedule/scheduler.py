"""The scheduler of one rank: who computes which tokens in the next step, and in which pages.

Continuous batching after Orca (Yu et al., OSDI 2022), chunked prefill beside decoding after
Sarathi-Serve (Agrawal et al., OSDI 2024), paged caches with preemption by recompute after vLLM
(Kwon et al., SOSP 2023). Pure bookkeeping of ints: no tensor, no clock, no randomness.
"""

from collections import OrderedDict
from collections.abc import Iterator

from moe_serve.schedule.admission import Entrance, check_limits
from moe_serve.schedule.handovers import Handovers
from moe_serve.schedule.lending import SchedulerPages
from moe_serve.schedule.page_budget import PageBudget
from moe_serve.schedule.page_cache import PageCache
from moe_serve.schedule.sequence import Phase, Sequence
from moe_serve.schedule.step_cost import StepWork
from moe_serve.schedule.step_plan import Rotation, StepPlan, outlook, that_decode
from moe_serve.schedule.waiting_line import WaitingLine
from moe_serve.types import Batch, FinishReason, Request, SampledToken, StepOutput, TokenEvent


class Scheduler:
    """Takes requests, gives batches, and turns the batches' results into events.

    `schedule` and `update` take turns; `add` and `abort` may come at any time, also while a step
    is computed. The oldest running sequence is never preempted, and any request that `add`
    accepts fits the guaranteed pages alone, so each one ends.

    Args:
        num_pages: of the cache.
        max_tokens_per_step: tokens of one batch, decoding and prefill together.
        max_sequences: sequences that run at once.
        max_live: requests, running and waiting, beyond which `add` raises OverloadedError.
        max_context: the most tokens of prompt and answer.
        prefix_caching: share and keep the pages of equal prefixes.
        budget: how many pages may hold something, where the memory is shared with other tenants,
            for whom some may be taken back between steps. None is all of them.

    Attributes:
        handovers: sequences whose prompt is computed for another rank, or by one.
        num_started: how often a sequence began to run, anew after a preemption.
        num_prompt_tokens: of the requests admitted so far; num_cached_tokens of them were found
            in the prefix tree.
    """

    def __init__(
        self,
        *,
        num_pages: int,
        page_size: int,
        max_tokens_per_step: int,
        max_sequences: int,
        max_live: int,
        max_context: int,
        prefix_caching: bool,
        budget: PageBudget | None = None,
    ) -> None:
        check_limits(num_pages, page_size, max_tokens_per_step, max_sequences, max_context)
        self._max_tokens_per_step = max_tokens_per_step
        # With more, some that run could not even decode one token a step.
        max_running = min(max_sequences, max_tokens_per_step)
        self._cache = PageCache(
            num_pages=num_pages, page_size=page_size, prefix_caching=prefix_caching, budget=budget
        )
        self._budget = self._cache.budget
        pages_key = "cache.num_pages" if budget is None else "slice.memory_mb"
        self._entrance = Entrance(max_live, max_context, page_size, self._budget, pages_key)
        self._waiting: OrderedDict[str, Sequence] = OrderedDict()
        self._running: dict[str, Sequence] = {}  # in the order of admission
        self._line = WaitingLine(self._cache, self._waiting, self._running, max_running)
        self.handovers = Handovers(self._cache, self._waiting, self._running)
        self._budget.attach(
            SchedulerPages(self._cache, self._waiting, self._running, self._preempt_for_others)
        )
        self._step = StepPlan(0)
        self._rotation = Rotation()
        self.num_preemptions = 0
        self.num_started = 0
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0
        self.num_generated_tokens = 0

    @property
    def has_work(self) -> bool:
        """Whether the next batch has something to compute, or somebody new in it."""
        for sequence in self._running.values():
            if sequence.phase is Phase.RUNNING:
                return True
        return self._line.can_move

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Of all live requests."""
        return (*self._running, *self._waiting)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_pages_used(self) -> int:
        """Pages that running sequences hold."""
        return self._cache.num_used

    @property
    def num_pages_cached(self) -> int:
        """Pages that only the prefix tree holds, to be evicted at need."""
        return self._cache.num_cached

    def check(self, request: Request) -> None:
        """Refuse what `add` would refuse whenever it came.

        Raises:
            RequestError: the request could not be finished even if it were alone.
        """
        self._entrance.check(request)

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            OverloadedError: max_live requests run or wait, and none had admitted this one before.
            RequestError: the request could not be finished even if it were alone.
        """
        self.check(request)
        self._entrance.check_load(request, len(self._waiting) + len(self._running))
        request_id = request.request_id
        live = request_id in self._waiting or request_id in self._running
        assert not live, f"request {request_id} is live"
        self._waiting[request_id] = Sequence(request)

    def abort(self, request_id: str) -> TokenEvent | None:
        """End a request and free what it holds at once; None if there is no such request, or if
        this rank only computes its prompt."""
        sequence = self._running.pop(request_id, None) or self._waiting.pop(request_id, None)
        if sequence is None:
            return None
        self._cache.release(sequence, Phase.ENDED)
        return sequence.abort_event() if sequence.samples else None

    def outlook(self) -> tuple[StepWork, int | None]:
        """All that could decode in the next step, and how many tokens lie before the part of a
        prompt that is next in it; None where there is no prompt."""
        decoding, start = outlook(self._running.values())
        return decoding, self._line.num_cached if start is None and self._waiting else start

    def schedule(self, max_tokens: int | None = None) -> Batch:
        """Form the next step; no chunks where there is nothing to do.

        Args:
            max_tokens: of this step, where that is less than of any step, and at least 1. Where
                not all that decode fit, they take turns.
        """
        assert not self._step.chunks, "the last batch is not updated yet"
        self._budget.settle()
        most = self._max_tokens_per_step
        self._step = StepPlan(most if max_tokens is None else min(most, max_tokens))
        num_preemptions = self.num_preemptions
        self._decode()
        if len(self._step.chunks) < len(self._running):
            self._prefill()
        # Who was just preempted is first in line, and there is no room for it.
        if self._waiting and self.num_preemptions == num_preemptions:
            for sequence in self._line.admit(self._step):
                self._start(sequence)
        return self._step.batch()

    def cancel(self) -> None:
        """Forget the last batch, of which nothing was computed; it takes the place of `update`."""
        self._step = StepPlan(0)

    def update(self, output: StepOutput) -> list[TokenEvent]:
        """Take in the results of the last batch; results of aborted requests are dropped."""
        return [
            sequence.token_event(token, finish_reason)
            for sequence, token, finish_reason in self.advance(output)
        ]

    def advance(
        self, output: StepOutput
    ) -> Iterator[tuple[Sequence, SampledToken, FinishReason | None]]:
        """`update` before it makes events: each sequence, its new token, and why it was the last.

        The results are taken in as the iterator is used up.
        """
        step, self._step = self._step, StepPlan(0)
        running, commit = Phase.RUNNING, self._cache.commit
        for sequence, chunk, token in step.results(output):
            if sequence.phase is not running:
                continue
            sequence.num_computed += len(chunk.token_ids)
            commit(sequence)
            if token is None:
                if not sequence.samples:
                    self.handovers.finish(sequence)
                continue
            self.num_generated_tokens += 1
            finish_reason = sequence.append(token.token_id)
            if finish_reason is not None:
                del self._running[sequence.request_id]
                self._cache.release(sequence, Phase.ENDED)
            yield sequence, token, finish_reason

    def _decode(self) -> None:
        step = self._step
        for sequence in self._rotation.choose(that_decode(self._running.values()), step.budget):
            if self._make_room(sequence):
                step.add(sequence)

    def _make_room(self, sequence: Sequence) -> bool:
        """Give a sequence room for its newest token; False where it is preempted itself."""
        while sequence.phase is Phase.RUNNING:
            if self._cache.grow(sequence):
                return True
            self._preempt_latest()
        return False

    def _preempt_for_others(self) -> None:
        assert not self._step.chunks, "pages are taken back in the middle of a step"
        self._preempt_latest()

    def _preempt_latest(self) -> None:
        request_id, sequence = self._running.popitem()
        assert self._running, f"{request_id} does not fit all the pages"
        self._cache.release(sequence, Phase.WAITING)
        self._waiting[request_id] = sequence
        self._waiting.move_to_end(request_id, last=False)
        self.num_preemptions += 1

    def _prefill(self) -> None:
        for sequence in self._running.values():
            if not self._step.budget:
                return
            if sequence.num_uncomputed > 1 and sequence.phase is Phase.RUNNING:
                self._step.add(sequence)

    def _start(self, sequence: Sequence) -> None:
        self._running[sequence.request_id] = self._waiting.pop(sequence.request_id)
        sequence.phase, sequence.forerunner = Phase.RUNNING, None
        self.num_started += 1
        if not sequence.was_admitted:
            sequence.was_admitted = True
            sequence.num_cached = sequence.num_computed
            self.num_prompt_tokens += sequence.num_prompt
            self.num_cached_tokens += sequence.num_cached
        if sequence.comes_from_afar or not sequence.samples:
            self.handovers.start(sequence)
        if sequence.phase is Phase.RUNNING:
            self._step.add(sequence)
