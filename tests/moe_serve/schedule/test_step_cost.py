"""What a step costs, learned from made-up devices."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from statistics import fmean

import pytest

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.schedule.step_bound import StepBound
from moe_serve.schedule.step_cost import StepCost, StepWork, attended_by
from moe_serve.types import Batch, Chunk, Request, SampledToken, SamplingParams, StepOutput

BOUND = 0.004


@dataclass
class MadeUpDevice:
    """Attributes:
    step, sequence, prompt_token, read, attended: seconds.
    noise: standard deviation of a step's time, as a share of it.
    outliers: share of steps that take ten times as long.
    """

    step: float = 1e-3
    sequence: float = 3e-5
    prompt_token: float = 3e-5
    read: float = 2e-8
    attended: float = 2e-9
    noise: float = 0.0
    outliers: float = 0.0
    random: Random = field(default_factory=lambda: Random(0))

    def seconds(self, work: StepWork) -> float:
        costs = (self.step, self.sequence, self.prompt_token, self.read, self.attended)
        return sum(cost * part for cost, part in zip(costs, work.parts, strict=True))

    @property
    def target(self) -> float:
        """What steps are to take: the bound, unless a step without tokens takes most of it."""
        return max(BOUND, 1.5 * self.step)

    def timed(self, work: StepWork) -> float:
        disturbed = 10.0 if self.random.random() < self.outliers else 1.0
        return self.seconds(work) * disturbed * self.random.lognormvariate(0.0, self.noise)


class Server:
    """Always as many requests, on a made-up device.

    Attributes:
        steps: work and true seconds of each.
        answers: how many tokens each might have; None where that was not asked.
    """

    def __init__(
        self,
        device: MadeUpDevice,
        num_requests: int = 32,
        num_prompt: int = 800,
        *,
        prefix_caching: bool = False,
    ) -> None:
        self.device = device
        self.cost = StepCost()
        self.steps: list[tuple[StepWork, float]] = []
        self.answers: list[int | None] = []
        self.num_requests = num_requests
        self.num_prompt = num_prompt
        self.random = Random(1)
        self.num_added = 0
        self.scheduler = Scheduler(
            num_pages=1 << 16,
            page_size=16,
            max_tokens_per_step=512,
            max_sequences=256,
            max_live=1000,
            max_context=1 << 16,
            prefix_caching=prefix_caching,
        )
        self.bound = StepBound(self.scheduler, self.cost)

    def run(self, num_steps: int, bound: float = BOUND) -> list[float]:
        """True seconds of these steps."""
        for _ in range(num_steps):
            while self.scheduler.num_running + self.scheduler.num_waiting < self.num_requests:
                self.add()
            self.step(bound)
        return [seconds for _, seconds in self.steps[-num_steps:]]

    def add(self) -> None:
        self.num_added += 1
        num_prompt = self.random.randint(self.num_prompt // 8, 2 * self.num_prompt)
        sampling = SamplingParams(max_tokens=self.random.randint(10, 200))
        prompt_ids = tuple(range(num_prompt))
        self.scheduler.add(
            Request(request_id=str(self.num_added), prompt_ids=prompt_ids, sampling=sampling)
        )

    def step(self, bound: float) -> None:
        max_tokens = self.bound.max_tokens(bound)
        batch = self.scheduler.schedule(max_tokens)
        work = StepWork.of(batch)
        self.steps.append((work, self.device.seconds(work)))
        self.answers.append(max_tokens)
        if self.bound.wants(batch):
            self.bound.observe(batch, self.device.timed(work))
        sampled = (SampledToken(chunk.request_id, 1) for chunk in batch.chunks if chunk.samples)
        self.scheduler.update(StepOutput(tuple(sampled)))


def share_of(steps: list[float], share: float) -> float:
    return sorted(steps)[int(share * len(steps))]


def test_work_of_a_batch() -> None:
    decoding, prompt = Chunk("a", 10, (1,), (0,), True), Chunk("b", 4, (1, 2, 3), (1,), False)
    assert attended_by([decoding]) == 11 and attended_by([prompt]) == 5 + 6 + 7
    assert StepWork.of(Batch((decoding, prompt))) == StepWork(1, 3, 11 + 7, 5 + 6 + 7)
    # One token of a prompt, and not its last: tells what prompt tokens cost.
    assert StepWork.of(Batch((Chunk("a", 10, (1,), (0,), False),))) == StepWork(0, 1, 11, 11)
    assert StepWork.of(Batch()) == StepWork()


def test_of_steps_that_only_decode_it_wants_the_first_and_later_few() -> None:
    cost = StepCost()
    decoding, prompt = Chunk("a", 10, (1,), (0,), True), Chunk("b", 4, (1, 2, 3), (1,), False)
    wanted = [cost.wants(Batch((decoding,))) for _ in range(2000)]
    assert all(wanted[:4]) and sum(wanted[:100]) > 20
    assert sum(wanted[1000:]) == pytest.approx(1000 / 5, abs=1)
    assert all(cost.wants(Batch((decoding, prompt))) for _ in range(100))
    assert not any(cost.wants(Batch()) for _ in range(100))


def test_while_the_same_decode_on_it_is_asked_seldom_and_of_every_prompt() -> None:
    server = Server(MadeUpDevice(), num_requests=3, num_prompt=80)
    server.run(3000)
    unasked = [number for number, answer in enumerate(server.answers) if answer is None]
    assert len(unasked) > 2000
    for number in unasked:
        work, before = server.steps[number][0], server.steps[number - 1][0]
        assert work.num_prompt_tokens == 0 and work.num_decoding == before.num_decoding
    asked = [answer for answer in server.answers[-1000:] if answer is not None]
    assert len(asked) > 1000 / 17


@pytest.mark.parametrize("how", ["one ends as it comes", "another is aborted", "beside no bound"])
def test_a_prompt_that_takes_anothers_place_is_bound(how: str) -> None:
    server = Server(MadeUpDevice(), num_requests=0)
    scheduler = server.scheduler

    def come(name: str, num_prompt: int, num_tokens: int) -> None:
        sampling = SamplingParams(max_tokens=num_tokens, ignore_eos=True)
        prompt_ids = tuple(range(num_prompt))
        scheduler.add(Request(request_id=name, prompt_ids=prompt_ids, sampling=sampling))

    come("before", 600, 100)
    while scheduler.has_work:
        server.step(BOUND)
    come("first", 16, 40)
    come("second", 16, 200)
    for _ in range(39):
        server.step(BOUND)
    come("long", 8000, 4)
    if how == "another is aborted":
        server.step(BOUND)
        scheduler.abort("second")
    elif how == "beside no bound":
        scheduler.abort("first")
        batch = scheduler.schedule(64)
        sampled = (SampledToken(chunk.request_id, 1) for chunk in batch.chunks if chunk.samples)
        scheduler.update(StepOutput(tuple(sampled)))
    num_before = len(server.steps)
    server.run(40)
    assert sum(work.num_prompt_tokens > 0 for work, _ in server.steps[num_before:]) == 40
    assert max(seconds for _, seconds in server.steps[num_before:]) < 1.5 * BOUND


def test_what_is_cached_of_a_prompt_counts_from_its_first_step() -> None:
    server = Server(MadeUpDevice(attended=2e-8), num_requests=0, prefix_caching=True)
    prompt_ids = tuple(range(20_000))

    def come(name: str, num_prompt: int) -> None:
        sampling = SamplingParams(max_tokens=2, ignore_eos=True)
        request = Request(request_id=name, prompt_ids=prompt_ids[:num_prompt], sampling=sampling)
        server.scheduler.add(request)
        while server.scheduler.has_work:
            server.step(BOUND)

    come("first", 19_000)
    num_before = len(server.steps)
    come("second", 20_000)
    steps = server.steps[num_before:]
    assert sum(work.num_prompt_tokens for work, _ in steps) < 1100
    assert steps[0][1] < 1.5 * BOUND


def test_where_not_all_fit_it_is_asked_of_every_step() -> None:
    server = Server(MadeUpDevice(sequence=1e-3), num_requests=12, num_prompt=8)
    server.run(400)
    crowded = [answer for answer in server.answers[200:] if answer is not None]
    assert len(crowded) == 200 and sum(answer < 12 for answer in crowded) > 150


def test_it_begins_with_few_tokens_and_never_more_than_doubles_them() -> None:
    # Cheap enough that 100,000 tokens would fit.
    server = Server(MadeUpDevice(step=1e-5, sequence=1e-9, prompt_token=1e-9), num_requests=4)
    server.run(30, bound=0.1)
    tokens = [work.num_prompt_tokens for work, _ in server.steps]
    assert tokens[0] == 16
    assert all(now <= 2 * max(tokens[:number]) for number, now in enumerate(tokens) if number)
    assert max(tokens[:8]) > 400


@pytest.mark.parametrize(
    "device",
    [
        MadeUpDevice(),
        MadeUpDevice(attended=0.0),
        MadeUpDevice(step=3e-3, sequence=1e-5, prompt_token=1e-5),
        MadeUpDevice(step=1e-5, sequence=1e-4, prompt_token=1e-4, attended=1e-8),
        # Not even a step's decoding fits: sequences take turns.
        MadeUpDevice(step=2e-4, sequence=4e-4),
    ],
)
@pytest.mark.parametrize(("noise", "outliers"), [(0.0, 0.0), (0.2, 0.05)])
def test_steps_take_as_long_as_they_may(
    device: MadeUpDevice, noise: float, outliers: float
) -> None:
    device.noise, device.outliers, device.random = noise, outliers, Random(0)
    server = Server(device)
    first, later = server.run(60), server.run(600)
    assert max(first) < 3 * device.target
    # Neither beyond the bound nor, while so many prompts wait, far below it.
    assert 0.8 * device.target < fmean(later) < 1.1 * device.target
    assert share_of(later, 0.95) < 1.3 * device.target
    assert max(later) < 3 * device.target


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_it_follows_a_device_that_changes(factor: float) -> None:
    device = MadeUpDevice(noise=0.1)
    server = Server(device)
    server.run(200)
    device.step, device.sequence = factor * device.step, factor * device.sequence
    device.prompt_token, device.attended = factor * device.prompt_token, factor * device.attended
    server.run(100)
    later = server.run(300)
    assert 0.8 * BOUND < fmean(later) < 1.1 * device.target
    assert share_of(later, 0.95) < 1.4 * device.target


def test_one_outlier_moves_it_little() -> None:
    server = Server(MadeUpDevice())
    server.run(200)
    work = server.steps[-1][0]
    before = server.cost.expected(work)
    server.cost.observe(work, 50 * before)
    assert before < server.cost.expected(work) < 1.2 * before


def test_long_decoding_does_not_make_it_forget_prompts() -> None:
    server, prompt = Server(MadeUpDevice()), StepWork(0, 64, 400, 64 * 368)
    server.run(200)
    # So many that the weight of the last prompt would be less than the smallest number.
    for number in range(12_000):
        work = StepWork(8, 0, 8 * (100 + number))
        server.cost.observe(work, server.device.timed(work))
    expected = server.device.seconds(prompt)
    assert 0.7 * expected < server.cost.expected(prompt) < 1.4 * expected


def test_a_bound_below_a_steps_own_cost_still_computes_prompts() -> None:
    server = Server(MadeUpDevice(step=20e-3))
    server.run(60)
    assert share_of(server.run(300), 0.95) < 1.2 * server.device.target
    assert sum(work.num_prompt_tokens for work, _ in server.steps) / len(server.steps) > 50


@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 1.0])
def test_there_is_always_a_token(seconds: float) -> None:
    cost = StepCost()
    nothing = StepWork()
    assert cost.tokens_within(seconds, nothing, 0) == 16
    for _ in range(10):
        cost.observe(StepWork(4, 16, 900), 0.5)
        cost.observe(StepWork(64, 0, 90000), 3.0)
        for decoding in (nothing, StepWork(64, 0, 90000)):
            for start in (0, 1 << 20):
                assert cost.tokens_within(seconds, decoding, start) >= 1


def test_it_finds_out_that_tokens_cost_less_than_the_first_step_made_it_believe() -> None:
    """A step takes what it may all by itself, and the first one ten times as long."""
    device = MadeUpDevice(step=4e-3, sequence=3e-4, read=8e-7, attended=4e-8, noise=0.15)
    server = Server(device, num_requests=6, num_prompt=1200)
    device.step *= 10
    server.run(1)
    device.step /= 10
    server.run(300)
    tokens = [work.num_prompt_tokens for work, _ in server.steps[50:]]
    assert fmean(filter(None, tokens)) > 10


def test_parts_are_never_negative() -> None:
    cost, random = StepCost(), Random(3)
    works = [StepWork(random.randint(0, 9), random.randint(0, 99), 1, 1) for _ in range(300)]
    # The more tokens the shorter: no parts explain that.
    for work in works:
        cost.observe(work, 1.0 / (1 + work.num_prompt_tokens))
        one_by_one: list[Callable[[], StepWork]] = [
            lambda: StepWork(1, 0, 0),
            lambda: StepWork(0, 1, 0),
            lambda: StepWork(0, 0, 1),
            lambda: StepWork(0, 0, 0, 1),
        ]
        assert all(cost.expected(make()) >= cost.expected(StepWork()) >= 0 for make in one_by_one)
