"""The simulator's own scheduler of one rank, as fast as counting allows.

Continuous batching after Orca (Yu et al., OSDI 2022), chunked prefill beside decoding after
Sarathi-Serve (Agrawal et al., OSDI 2024), paged caches with preemption by recompute after vLLM
(Kwon et al., SOSP 2023), prefixes kept least recently used after RadixAttention (Zheng et al.
2023, arXiv:2312.07104).
"""

from collections import OrderedDict
from itertools import islice

from moe_placement.simulator.admission import check_request
from moe_placement.simulator.decoding import DecodingGroup
from moe_placement.simulator.scheduler import (
    Outcome,
    PrefillChunk,
    RefusedError,
    SchedulerLimits,
    SimulatedRequest,
    Step,
)
from moe_placement.simulator.sequence import Phase, Sequence
from moe_placement.simulator.sequence_pages import SequencePages


class StandInScheduler:
    """Decoding goes first, then prefill in order of admission, then who waits longest.

    The oldest running sequence is never preempted, and a request that is taken fits the pages
    alone, so each one ends. A sequence whose next page a running one is about to compute waits
    and shares it.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        self._limits = limits
        # With more, some that run could not even decode.
        self._max_running = min(
            limits.max_sequences, limits.max_tokens_per_step // limits.decode_tokens
        )
        self._pages = SequencePages(limits)
        self._decoding = DecodingGroup(limits.page_size)
        self._waiting: OrderedDict[int, Sequence] = OrderedDict()
        self._running: dict[int, Sequence] = {}  # in the order of admission
        self._prefilling: dict[int, Sequence] = {}
        self._chunks: list[tuple[Sequence, int]] = []
        self._budget = 0
        self._tokens_each = 1
        self._num_decode_steps = 0
        self._num_admitted = 0
        self.num_preemptions = 0
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_pages_used(self) -> int:
        """Pages that running sequences hold."""
        return self._pages.cache.num_used

    def add(self, request: SimulatedRequest, num_computed: int = 0) -> None:
        """Queue a request; another rank may have computed, and sent, its first tokens.

        Raises:
            RefusedError: the queue is full, or the request could not end even if it were alone.
        """
        check_request(request, self._limits)
        num_live = len(self._waiting) + len(self._running)
        if 0 < self._limits.max_live <= num_live:
            raise RefusedError(
                f"{num_live} requests run or wait on this rank, max_live is "
                f"{self._limits.max_live}; raise it, or send fewer"
            )
        self._waiting[request.request_id] = Sequence(request, num_computed)

    def abort(self, request_id: int) -> int:
        """End a live request, and return how many tokens it had generated."""
        sequence = self._running.pop(request_id, None) or self._waiting.pop(request_id)
        self._release(sequence, Phase.ENDED)
        return sequence.num_generated

    def schedule(self) -> Step:
        """Form the next step; it is empty only where no request is live."""
        self._tokens_each = self._next_tokens_each()
        num_preemptions = self.num_preemptions
        preempted = self._grow()
        num_decoding = len(self._decoding)
        self._budget = self._limits.max_tokens_per_step - num_decoding * self._limits.decode_tokens
        # One token left of a prompt is as urgent as one of an answer.
        for sequence in sorted(self._prefilling.values(), key=_has_many_left):
            self._compute(sequence)
        # Who was just preempted is first in line, and there is no room for it.
        if self._waiting and self.num_preemptions == num_preemptions:
            self._admit()
        chunks = [
            PrefillChunk(sequence.request.request_id, num_tokens, sequence.num_computed)
            for sequence, num_tokens in self._chunks
        ]
        return Step(tuple(chunks), num_decoding, self._decoding.context, preempted)

    def update(self) -> Outcome:
        """Take the last step as computed."""
        num_decoded = len(self._decoding)
        finished: list[int] = []
        if num_decoded:
            self._num_decode_steps += 1
            finished = [self._finish(one) for one in self._decoding.advance(self._tokens_each)]
        chunks, self._chunks = self._chunks, []
        emitted = [one.request.request_id for one, num in chunks if self._end_prefill(one, num)]
        finished += [self._finish(one) for one, _ in chunks if self._has_ended(one)]
        return Outcome(num_decoded, self._tokens_each, tuple(emitted), tuple(finished))

    def _next_tokens_each(self) -> int:
        """Whole tokens for each that decodes, whose mean over the steps is what was asked for."""
        mean, before = self._limits.tokens_per_step, self._num_decode_steps
        return int((before + 1) * mean) - int(before * mean)

    def _grow(self) -> tuple[int, ...]:
        """Make room for all that decode, and return which of them it took the pages from."""
        preempted: list[int] = []
        while outgrowing := self._decoding.outgrowing(self._tokens_each):
            for sequence in outgrowing:
                while sequence in self._decoding and not self._pages.cache.num_available:
                    preempted += self._preempt_latest()
                if sequence in self._decoding:
                    self._pages.cache.allocate(1)
                    self._decoding.add_page(sequence)
        return tuple(preempted)

    def _preempt_latest(self) -> list[int]:
        """Take the pages of who came last, and return its id if it decoded."""
        request_id, sequence = self._running.popitem()
        assert self._running, f"request {request_id} does not fit all the pages"
        decoded = [request_id] if sequence in self._decoding else []
        self._release(sequence, Phase.WAITING)
        self._waiting[request_id] = sequence
        self._waiting.move_to_end(request_id, last=False)
        self.num_preemptions += 1
        return decoded

    def _compute(self, sequence: Sequence) -> None:
        num_tokens = min(sequence.num_uncomputed, self._budget)
        if num_tokens:
            self._budget -= num_tokens
            self._chunks.append((sequence, num_tokens))

    def _admit(self) -> None:
        # Those held back keep their places among the running.
        num_places = self._max_running - len(self._running)
        for sequence in list(islice(self._waiting.values(), num_places)):
            if not self._budget or not (self._pages.waits(sequence) or self._try_admit(sequence)):
                return

    def _try_admit(self, sequence: Sequence) -> bool:
        """Start a sequence, or let it wait for another's page; False where there is no room."""
        if not self._has_room(sequence):
            return False
        matched = self._pages.match(sequence)
        if self._pages.defer(sequence, len(matched)):
            return True
        sequence.num_wanted = self._pages.num_wanted(sequence, matched)
        if not self._has_room(sequence):
            return False
        self._pages.place(sequence, matched)
        self._start(sequence)
        return True

    def _has_room(self, sequence: Sequence) -> bool:
        # A page for each running one to grow into: else the newcomer would soon be preempted.
        return sequence.num_wanted + len(self._running) <= self._pages.cache.num_available

    def _start(self, sequence: Sequence) -> None:
        request = sequence.request
        self._running[request.request_id] = self._waiting.pop(request.request_id)
        self._prefilling[request.request_id] = sequence
        self._num_admitted += 1
        sequence.order, sequence.phase = self._num_admitted, Phase.RUNNING
        if not sequence.was_admitted:
            sequence.was_admitted = True
            self.num_prompt_tokens += request.prompt_tokens
            self.num_cached_tokens += sequence.num_committed * self._limits.page_size
        self._compute(sequence)

    def _end_prefill(self, sequence: Sequence, num_tokens: int) -> bool:
        """Take a chunk as computed; True if it was the last one, which gives a token."""
        if sequence.phase is not Phase.RUNNING:
            return False
        sequence.num_computed += num_tokens
        self._pages.commit(sequence)
        if sequence.num_uncomputed:
            return False
        sequence.num_generated += 1
        del self._prefilling[sequence.request.request_id]
        if sequence.num_left:
            self._decoding.join(sequence)
        return True

    def _has_ended(self, sequence: Sequence) -> bool:
        return sequence.phase is Phase.RUNNING and not sequence.num_left

    def _finish(self, sequence: Sequence) -> int:
        request_id = sequence.request.request_id
        del self._running[request_id]
        self._release(sequence, Phase.ENDED)
        return request_id

    def _release(self, sequence: Sequence, phase: Phase) -> None:
        if sequence in self._decoding:
            self._decoding.leave(sequence)
        self._prefilling.pop(sequence.request.request_id, None)
        self._pages.release(sequence, phase)


def _has_many_left(sequence: Sequence) -> bool:
    return sequence.num_uncomputed > 1
