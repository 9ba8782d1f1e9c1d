"""The front end's place in the slices benchmark: hands a rank its requests, takes its reports."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import inf

import numpy as np

from moe_serve.bench.slices_job import ANY_RANK, Answer, Arrival, RankLog, Run, Stream
from moe_serve.bench.slices_visit import Visiting
from moe_serve.errors import RequestError
from moe_serve.messages import Command, Report
from moe_serve.types import Request, SamplingParams, TokenEvent

_FIRST_TOKEN = 16
# Different ones of a stream, after which they begin anew.
_NUM_PROMPTS = 16
_LONGEST_WAIT = 0.02

Requests = Iterator[Request]


class Line:
    """A Link within the rank's own process; rank 0's ends the run.

    Args:
        vocab_sizes: by tenant.
    """

    def __init__(self, run: Run, rank: int, vocab_sizes: Mapping[int, int], log: RankLog) -> None:
        self._is_first = rank == 0
        self._log = log
        self._waits_for = run.waits_for
        self._patience = run.patience
        self._num_live = 0
        self._has_preempted = False
        self._wake = 0
        self._waiting: list[Request] = []
        # All prompts are made before the run begins, so that none of its time is lost on them.
        arrivals = list(_arrivals(run, vocab_sizes))
        self._followers: dict[str, Requests] = {}
        for requests, num_sequences in _streams(run, rank, vocab_sizes):
            for _ in range(num_sequences):
                self._ask(requests)
        begun = time.perf_counter()
        log.first, log.last = begun + run.warm_up, begun + run.warm_up + run.seconds
        self._visiting = Visiting(run.visitor, begun, log.visit)
        self._due = deque((log.first + at, request) for at, request in arrivals)
        for request in self._waiting:
            log.answers[request.request_id].asked = begun

    def receive(self) -> Sequence[Command]:
        now = time.perf_counter()
        while self._due and self._due[0][0] <= now:
            due, request = self._due.popleft()
            self._log.answers[request.request_id] = Answer(tenant=request.tenant, asked=due)
            self._waiting.append(request)
        stop = self._is_first and self._is_over(now)
        change = self._visiting.change(now)
        if not self._waiting and not stop and change is None:
            return ()
        self._wake += 1
        submit, self._waiting = tuple(self._waiting), []
        self._num_live += len(submit)
        return (Command(wake=self._wake, submit=submit, stop=stop, tenant_change=change),)

    def wait(self, seconds: float, descriptors: Sequence[int] = ()) -> None:
        now = time.perf_counter()
        self._log.pause_begins.append(now)
        due = self._due[0][0] if self._due else inf
        time.sleep(max(0.0, min(seconds, due - now, _LONGEST_WAIT)))

    def send(self, report: Report) -> bool:
        now = time.perf_counter()
        for event in report.events:
            self._take(event, now)
        if report.stats is not None and report.stats.num_preemptions > 0:
            self._has_preempted = True
        if report.tenant_news is not None:
            self._visiting.hear(report.tenant_news)
        return True

    def _is_over(self, now: float) -> bool:
        if now < self._log.last:
            return False
        is_there = {
            "nothing": True,
            "answers": not self._due and not self._num_live,
            "preemption": self._has_preempted,
        }
        is_done = is_there[self._waits_for] and self._visiting.is_over
        return is_done or now >= self._log.last + self._patience

    def _take(self, event: TokenEvent, now: float) -> None:
        if event.error:
            raise RequestError(f"request {event.request_id} of the benchmark: {event.error}")
        answer = self._log.answers[event.request_id]
        if event.token_id is not None:
            answer.times.append(now)
            answer.token_ids.append(event.token_id)
        if event.finish_reason is not None:
            answer.is_done = True
            self._num_live -= 1
            if (requests := self._followers.pop(event.request_id, None)) is not None:
                self._ask(requests)

    def _ask(self, requests: Requests) -> None:
        """The next of a stream; another one follows when this one is done."""
        request = next(requests)
        asked = time.perf_counter()
        self._log.answers[request.request_id] = Answer(tenant=request.tenant, asked=asked)
        self._followers[request.request_id] = requests
        self._waiting.append(request)


def _streams(run: Run, rank: int, vocab_sizes: Mapping[int, int]) -> Iterator[tuple[Requests, int]]:
    """Endless requests, and how many of them are under way at once."""
    for number, stream in enumerate(run.streams):
        if stream.rank in (ANY_RANK, rank):
            chance = np.random.default_rng([number, rank])
            shape = (_NUM_PROMPTS, stream.prompt_tokens)
            prompts = chance.integers(_FIRST_TOKEN, vocab_sizes[stream.tenant], shape).tolist()
            yield _endless(f"stream-{number}", stream, prompts), stream.num_sequences


def _endless(name: str, stream: Stream, prompts: Sequence[list[int]]) -> Requests:
    for index in count():
        yield _request(f"{name}-{index}", stream, prompts[index % len(prompts)])


def _arrivals(run: Run, vocab_sizes: Mapping[int, int]) -> Iterator[tuple[float, Request]]:
    for index, each in enumerate(run.arrivals):
        chance = np.random.default_rng([each.tenant, index])
        prompt = chance.integers(_FIRST_TOKEN, vocab_sizes[each.tenant], each.prompt_tokens)
        yield each.at, _request(f"arrival-{index}", each, prompt.tolist())


def _request(request_id: str, asked: Stream | Arrival, prompt: list[int]) -> Request:
    sampling = SamplingParams(temperature=0.0, max_tokens=asked.output_tokens, ignore_eos=True)
    return Request(
        request_id=request_id, tenant=asked.tenant, prompt_ids=tuple(prompt), sampling=sampling
    )
