"""The engine's scheduler as the planner's simulator drives it: lengths in, lengths out."""

from itertools import chain, islice

from moe_placement.simulator.errors import SimulationError
from moe_placement.simulator.scheduler import (
    Outcome,
    PrefillChunk,
    RefusedError,
    SchedulerLimits,
    SimulatedRequest,
    Step,
)

from moe_serve.errors import RequestError
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.types import Batch, Request, SampledToken, SamplingParams, StepOutput

_UNLIMITED = 1 << 62


class SimulatedScheduler:
    """Feeds the scheduler token ids that are alike where, and only where, block hashes are.

    Raises:
        SimulationError: the limits ask for speculation, which the engine's scheduler does not do.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        if limits.decode_tokens != 1:
            raise SimulationError(
                f"decode_tokens is {limits.decode_tokens}; the engine's scheduler computes 1 per "
                "sequence and step: ask for 1, or simulate with scheduler 'stand-in'"
            )
        self._scheduler = Scheduler(
            num_pages=limits.num_pages,
            page_size=limits.page_size,
            max_tokens_per_step=limits.max_tokens_per_step,
            max_sequences=limits.max_sequences,
            max_live=limits.max_live or _UNLIMITED,
            max_context=limits.max_context or _UNLIMITED,
            prefix_caching=limits.prefix_caching,
        )
        # One for all that a request is given: its pages differ by what lies before them.
        self._tokens: dict[str, SampledToken] = {}
        self._decoding: set[str] = set()
        self._batch = Batch()

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def num_preemptions(self) -> int:
        return self._scheduler.num_preemptions

    @property
    def num_prompt_tokens(self) -> int:
        return self._scheduler.num_prompt_tokens

    @property
    def num_cached_tokens(self) -> int:
        return self._scheduler.num_cached_tokens

    def add(self, request: SimulatedRequest, num_computed: int = 0) -> None:
        """Queue a request.

        Raises:
            RefusedError: as the engine's RequestError.
            SimulationError: its first tokens were computed elsewhere.
        """
        if num_computed:
            raise SimulationError(
                f"request {request.request_id} comes with the cache of {num_computed} tokens; the "
                "engine's scheduler takes none: simulate decode pools with scheduler 'stand-in'"
            )
        sampling = SamplingParams(max_tokens=request.output_tokens, ignore_eos=True)
        name = str(request.request_id)
        try:
            self._scheduler.add(
                Request(request_id=name, prompt_ids=_prompt_ids(request), sampling=sampling)
            )
        except RequestError as error:
            raise RefusedError(f"request {name}: {error}") from error
        self._tokens[name] = SampledToken(name, _own_id(request.request_id))

    def abort(self, request_id: int) -> int:
        """End a live request and return how many tokens it had generated."""
        self._decoding.discard(str(request_id))
        event = self._scheduler.abort(str(request_id))
        assert event is not None, f"request {request_id} is not live"
        return event.index

    def schedule(self) -> Step:
        """Form the next step; it is empty only where no request is live."""
        num_preemptions = self._scheduler.num_preemptions
        self._batch = self._scheduler.schedule()
        preempted: tuple[int, ...] = ()
        if self._scheduler.num_preemptions > num_preemptions:
            preempted = self._drop_preempted()
        chunks: list[PrefillChunk] = []
        decode_context = 0
        for chunk in self._batch.chunks:
            if chunk.request_id in self._decoding:
                decode_context += chunk.start + 1
            else:
                request_id, num_tokens = int(chunk.request_id), len(chunk.token_ids)
                chunks.append(PrefillChunk(request_id, num_tokens, chunk.start))
        return Step(tuple(chunks), len(self._decoding), decode_context, preempted)

    def update(self) -> Outcome:
        """Take the last step as computed."""
        tokens = [self._tokens[chunk.request_id] for chunk in self._batch.chunks if chunk.samples]
        num_decoded, emitted, finished = 0, [], []
        for sequence, _, finish_reason in self._scheduler.advance(StepOutput(tuple(tokens))):
            name = sequence.request_id
            if name in self._decoding:
                num_decoded += 1
            else:
                emitted.append(int(name))
                self._decoding.add(name)
            if finish_reason is not None:
                finished.append(int(name))
                self._decoding.discard(name)
                del self._tokens[name]
        self._batch = Batch()
        return Outcome(num_decoded, 1, tuple(emitted), tuple(finished))

    def _drop_preempted(self) -> tuple[int, ...]:
        # All that decode do so in each step; who is missing has lost its pages.
        preempted = self._decoding - {chunk.request_id for chunk in self._batch.chunks}
        self._decoding -= preempted
        return tuple(sorted(map(int, preempted)))


def _prompt_ids(request: SimulatedRequest) -> tuple[int, ...]:
    """Even ids stand for blocks' tokens; the request's own odd one for what none stands for."""
    size = request.block_tokens
    num_shared = min(request.prompt_tokens, len(request.blocks) * size)
    shared = chain.from_iterable(
        range(2 * block * size, 2 * (block + 1) * size, 2) for block in request.blocks
    )
    own = (_own_id(request.request_id),) * (request.prompt_tokens - num_shared)
    return (*islice(shared, num_shared), *own)


def _own_id(request_id: int) -> int:
    return 2 * request_id + 1
