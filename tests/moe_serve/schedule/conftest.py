"""A world around the scheduler: a fake device that remembers its pages, a client that checks."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from moe_serve.schedule.prefix_tree import Node
from moe_serve.schedule.scheduler import Scheduler
from moe_serve.schedule.sequence import Phase, Sequence
from moe_serve.types import (
    Batch,
    Chunk,
    FinishReason,
    Request,
    SampledToken,
    SamplingParams,
    StepOutput,
    TokenEvent,
)

# What a slot of a page holds: the tenant and all tokens up to and with the slot's own.
Content = tuple[int, tuple[int, ...]]

DEFAULT_LIMITS: dict[str, Any] = {
    "num_pages": 64,
    "page_size": 4,
    "max_tokens_per_step": 64,
    "max_sequences": 16,
    "max_live": 80,
    "max_context": 256,
    "prefix_caching": True,
}


def next_token(tenant: int, token_ids: list[int]) -> int:
    """The fake model: any change of the history changes the answer sooner or later."""
    state = tenant + 1
    for token_id in token_ids:
        state = (state * 31 + token_id + 1) % 1009
    return state % 6


def answer_alone(request: Request) -> tuple[list[int], FinishReason]:
    """What the request must get, whatever else runs."""
    sampling, history = request.sampling, list(request.prompt_ids)
    stops = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else request.end_token_ids)}
    answer: list[int] = []
    while len(answer) < sampling.max_tokens:
        answer.append(next_token(request.tenant, history + answer))
        if answer[-1] in stops:
            return answer, "stop"
    return answer, "length"


class World:
    """Runs a scheduler and checks each batch, each event, and the pages after each act."""

    def __init__(self, scheduler_type: type[Scheduler] = Scheduler, **limits: Any) -> None:
        self.limits = DEFAULT_LIMITS | limits
        self.page_size = self.limits["page_size"]
        self.scheduler = scheduler_type(**self.limits)
        self.memory: dict[tuple[int, int], Content] = {}
        self.requests: dict[str, Request] = {}
        self.answers: dict[str, list[int]] = {}
        self.first_events: dict[str, TokenEvent] = {}
        self.reasons: dict[str, FinishReason] = {}
        self.batch = Batch()
        # Where somebody may be admitted who then waits for another rank.
        self.expects_nothing = False

    def is_live(self, request_id: str) -> bool:
        return request_id in self.requests and request_id not in self.reasons

    @property
    def num_live(self) -> int:
        return len(self.requests) - len(self.reasons)

    def add(self, request: Request) -> None:
        self.scheduler.add(request)
        self.requests[request.request_id] = request
        self.answers[request.request_id] = []

    def abort(self, request_id: str) -> None:
        event = self.scheduler.abort(request_id)
        assert event is not None and event.finish_reason == "abort", "no abort event"
        self.receive(event)

    def begin_step(self, max_tokens: int | None = None) -> Batch:
        had_work = self.scheduler.has_work
        oldest = next(iter(self.scheduler._running.values()), None)
        self.batch = self.scheduler.schedule(max_tokens)
        assert oldest is None or oldest.phase is not Phase.WAITING, "the oldest was preempted"
        assert self.batch.chunks or not had_work or self.expects_nothing, "no progress"
        self.check_batch(max_tokens or self.limits["max_tokens_per_step"])
        return self.batch

    def cancel_step(self) -> None:
        """Something kept it from being computed."""
        self.scheduler.cancel()
        self.batch = Batch()

    def end_step(self) -> list[TokenEvent]:
        for chunk in self.batch.chunks:
            for position in range(chunk.start, chunk.start + len(chunk.token_ids)):
                self.memory[self.slot(chunk, position)] = self.content(chunk, position)
        sampled = tuple(
            SampledToken(chunk.request_id, self.sample(chunk))
            for chunk in self.batch.chunks
            if chunk.samples
        )
        self.batch = Batch()
        events = self.scheduler.update(StepOutput(sampled))
        for event in events:
            self.receive(event)
        return events

    def step(self) -> list[TokenEvent]:
        self.begin_step()
        return self.end_step()

    def run_until_idle(self, max_steps: int = 5000) -> list[TokenEvent]:
        events: list[TokenEvent] = []
        for _ in range(max_steps):
            if not self.scheduler.has_work:
                return events
            events.extend(self.step())
            self.check_pages()
        raise AssertionError(f"work is left after {max_steps} steps")

    def history(self, request_id: str) -> list[int]:
        return [*self.requests[request_id].prompt_ids, *self.answers[request_id]]

    def sample(self, chunk: Chunk) -> int:
        # From what lies in the pages, as a device would, not from what should lie there.
        tenant, token_ids = self.memory[self.slot(chunk, chunk.start + len(chunk.token_ids) - 1)]
        return next_token(tenant, list(token_ids))

    def slot(self, chunk: Chunk, position: int) -> tuple[int, int]:
        return chunk.page_ids[position // self.page_size], position % self.page_size

    def content(self, chunk: Chunk, position: int) -> Content:
        tenant = self.requests[chunk.request_id].tenant
        return tenant, tuple(self.history(chunk.request_id)[: position + 1])

    def receive(self, event: TokenEvent) -> None:
        request_id, request = event.request_id, self.requests[event.request_id]
        assert request_id not in self.reasons, f"{request_id} goes on after its end"
        answer = self.answers[request_id]
        assert event.index == len(answer), "an event is missing"
        if self.first_events.setdefault(request_id, event) is event:
            assert 0 <= event.num_cached_tokens < len(request.prompt_ids), "too much was cached"
        else:
            assert event.num_cached_tokens == 0, "only the first event tells what was cached"
        if event.token_id is not None:
            answer.append(event.token_id)
        expected, reason = answer_alone(request)
        assert answer == expected[: len(answer)], "other tokens than alone"
        if event.finish_reason is not None:
            self.reasons[request_id] = event.finish_reason
        ends = answer == expected
        assert event.finish_reason in ((reason,) if ends else (None, "abort")), "ended amiss"

    def check_batch(self, max_tokens: int) -> None:
        batch = self.batch
        max_tokens = min(max_tokens, self.limits["max_tokens_per_step"])
        assert batch.num_tokens <= max_tokens, "beyond the budget"
        assert self.scheduler.num_running <= self.limits["max_sequences"], "too many sequences"
        assert len({chunk.request_id for chunk in batch.chunks}) == len(batch.chunks)
        written: Counter[tuple[int, int]] = Counter()
        for chunk in batch.chunks:
            self.check_chunk(chunk)
            end = chunk.start + len(chunk.token_ids)
            written.update(self.slot(chunk, position) for position in range(chunk.start, end))
        assert all(count == 1 for count in written.values()), "two write one slot of a page"

    def check_chunk(self, chunk: Chunk) -> None:
        assert chunk.request_id not in self.reasons, f"{chunk.request_id} is computed after its end"
        history, end = self.history(chunk.request_id), chunk.start + len(chunk.token_ids)
        assert chunk.token_ids, "an empty chunk"
        assert list(chunk.token_ids) == history[chunk.start : end], "other tokens than its own"
        assert chunk.samples == (end == len(history)), "sampled from the wrong token"
        assert end <= len(chunk.page_ids) * self.page_size, "a page is missing"
        for position in range(chunk.start):
            content = self.memory.get(self.slot(chunk, position))
            assert content == self.content(chunk, position), "reads a page with foreign content"

    def check_pages(self) -> None:
        cache, running = self.scheduler._cache, list(self.scheduler._running.values())
        held = Counter(page_id for sequence in running for page_id in sequence.page_ids)
        in_tree = cache.tree.page_ids
        never_held = range(len(cache.pool._references), cache.pool.num_pages)
        unused = Counter([*cache.pool._free, *cache.pool._absent, *never_held])
        cached = in_tree - held.keys()
        self.check_sharing(running)
        assert len(held) + len(cached) + len(unused) == self.limits["num_pages"], "a page is lost"
        assert unused.keys().isdisjoint(held.keys() | cached), "a free page is in use"
        assert max(unused.values(), default=1) == 1, "a page is free twice"
        assert self.scheduler.num_pages_used == len(held), "the gauge of used pages is wrong"
        assert self.scheduler.num_pages_cached == len(cached), "the gauge of cached pages is wrong"
        for page_id in range(self.limits["num_pages"]):
            owed = held[page_id] + (page_id in in_tree)
            assert cache.pool.references(page_id) == owed, "references on a page are miscounted"
        for tenant, root in cache.tree._roots.items():
            self.check_subtree(root, (tenant, ()))

    def check_sharing(self, running: list[Sequence]) -> None:
        contents: dict[int, Content] = {}
        for sequence in running:
            for index, page_id in enumerate(sequence.page_ids):
                prefix = tuple(sequence.token_ids[: (index + 1) * self.page_size])
                content = (sequence.request.tenant, prefix)
                if page_id in contents:
                    is_full = len(prefix) == (index + 1) * self.page_size
                    assert is_full and contents[page_id] == content, "a page is shared by mistake"
                contents[page_id] = content

    def check_subtree(self, node: Node, above: Content) -> None:
        tenant, token_ids = above[0], (*above[1], *node.block)
        for offset in range(len(node.block)):
            end = len(token_ids) - len(node.block) + offset + 1
            content = self.memory.get((node.page_id, offset))
            assert content == (tenant, token_ids[:end]), "the tree holds a page of other content"
        for child in node.children.values():
            self.check_subtree(child, (tenant, token_ids))

    def check_end(self) -> None:
        """Everything ended once, and each page is free or can be made free."""
        assert self.reasons.keys() == self.requests.keys(), "a request never ended"
        self.check_pages()
        assert self.scheduler.num_pages_used == 0, "pages are used after the end"
        cache = self.scheduler._cache
        while cache.tree.evict():
            pass
        assert cache.pool.num_free == cache.budget.num_held, "pages are not given back"


@pytest.fixture
def world_type() -> type[World]:
    return World


@pytest.fixture
def make_request() -> Callable[..., Request]:
    def make(
        request_id: str,
        prompt_ids: tuple[int, ...],
        tenant: int = 0,
        end_token_ids: tuple[int, ...] = (),
        **sampling: Any,
    ) -> Request:
        return Request(
            request_id=request_id,
            prompt_ids=prompt_ids,
            sampling=SamplingParams(**sampling),
            tenant=tenant,
            end_token_ids=end_token_ids,
        )

    return make
