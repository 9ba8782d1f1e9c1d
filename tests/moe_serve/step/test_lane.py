"""A real engine in a thread of its own, while another one steps in the test's."""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from engine_runs import prompts_of
from moe_devices.cpu_partition import CorePartition, partition_cores
from moe_devices.errors import DeviceError
from moe_devices.partition import Partition

from moe_serve.bring_up import meet
from moe_serve.build import build_rank
from moe_serve.config.tree import CacheConfig, Config, ModelConfig, PoolConfig
from moe_serve.control.meeting.world import launched_world
from moe_serve.step.lane import Lane
from moe_serve.step.rank_engine import RankEngine
from moe_serve.types import Request, SamplingParams, TokenEvent

GREEDY = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
LAST_SECONDS = 60.0


@pytest.fixture(scope="module")
def engines(checkpoint: Callable[..., Path]) -> Iterator[list[RankEngine]]:
    """Two of one model; exact, whatever they compute together."""
    config = Config(
        models=(ModelConfig(path=str(checkpoint("qwen3_moe")), dtype="float32"),),
        pools=(PoolConfig(name="pool", device="cpu", threads=1),),
        cache=CacheConfig(page_size=16, num_pages=100, prefix=False),
        deterministic=True,
    )
    num_threads = torch.get_num_threads()
    meeting = meet(config, launched_world())
    yield [build_rank(config, meeting).engine for _ in range(2)]
    meeting.close()
    torch.set_num_threads(num_threads)


@pytest.fixture
def partition() -> Partition:
    """The last core."""
    try:
        return partition_cores([50])[-1]
    except DeviceError:
        (core,) = os.sched_getaffinity(0)
        return CorePartition(((core,),), 1)


@pytest.fixture
def lane(engines: Sequence[RankEngine], partition: Partition) -> Iterator[Lane]:
    lane = Lane(engines[0], partition, "small")
    yield lane
    if lane.error == "":
        lane.close()


def requests(sampling: SamplingParams = GREEDY) -> list[Request]:
    return [
        Request(request_id=f"r{number}", prompt_ids=tuple(prompt), sampling=sampling)
        for number, prompt in enumerate(prompts_of())
    ]


def is_over(events: Sequence[TokenEvent]) -> bool:
    ended = [event for event in events if event.finish_reason is not None]
    return len(ended) == len(requests())


def tokens_of(events: Sequence[TokenEvent]) -> dict[str, list[int | None]]:
    tokens: dict[str, list[int | None]] = {}
    for event in events:
        tokens.setdefault(event.request_id, []).append(event.token_id)
        assert event.index == len(tokens[event.request_id]) - 1
    return tokens


def wait_for(lane: Lane, is_enough: Callable[[list[TokenEvent]], bool]) -> list[TokenEvent]:
    """Events until there are enough of them; sleeps on the descriptor as a serving loop does."""
    events: list[TokenEvent] = []
    last = time.monotonic() + LAST_SECONDS
    poll = select.poll()
    poll.register(lane.descriptor, select.POLLIN)
    while not is_enough(events):
        assert time.monotonic() < last, "no such events came"
        poll.poll(1000)
        events += lane.take_events()
    return events


def run(engine: RankEngine) -> list[TokenEvent]:
    for request in requests():
        engine.add(request)
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def test_tokens_are_the_same_while_another_engine_steps(
    engines: Sequence[RankEngine], lane: Lane
) -> None:
    before = lane.stats().num_steps
    for request in requests():
        lane.submit(request)
    beside = run(engines[1])
    events = wait_for(lane, is_over)
    alone = tokens_of(run(engines[1]))
    assert tokens_of(events) == tokens_of(beside) == alone
    assert {len(tokens) for tokens in alone.values()} == {GREEDY.max_tokens}
    assert lane.stats().num_steps - before >= GREEDY.max_tokens
    assert lane.stats().num_running == 0 and lane.seconds > 0


def test_a_lane_that_is_idle_takes_no_time(lane: Lane) -> None:
    lane.submit(requests()[0])
    wait_for(lane, lambda events: any(event.finish_reason for event in events))
    poll = select.poll()
    poll.register(lane.descriptor, select.POLLIN)
    assert poll.poll(0) == []
    used = seconds_of(lane_thread())
    time.sleep(0.3)
    assert seconds_of(lane_thread()) - used < 0.003


def test_refusals_and_ends_come_as_events(lane: Lane) -> None:
    long = SamplingParams(temperature=0.0, max_tokens=1000, ignore_eos=True)
    first, second = requests(long)[:2]
    lane.submit(Request(request_id="bad", prompt_ids=(10**6,), sampling=GREEDY))
    (refused,) = wait_for(lane, bool)
    assert (refused.request_id, refused.error_kind) == ("bad", "request")
    assert "token id 1000000 is not in" in refused.error
    lane.submit(first)
    lane.submit(second)
    wait_for(lane, lambda events: len(events) > 10)
    lane.abort(first.request_id)
    lane.abort("ended long ago")
    ends = wait_for(lane, lambda events: any(event.finish_reason for event in events))
    assert [e.request_id for e in ends if e.finish_reason == "abort"] == [first.request_id]
    left = lane.close()
    assert left[-1].request_id == second.request_id
    assert (left[-1].finish_reason, left[-1].error_kind) == ("error", "engine")
    assert left[-1].error == "model small is being taken away"


def test_an_engine_that_fails_ends_its_requests_and_no_other_ones(
    engines: Sequence[RankEngine], partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, num_steps = engines[0].step, iter(range(1000))

    def fail() -> list[TokenEvent]:
        if next(num_steps) == 5:
            raise RuntimeError("a planted fault")
        return step()

    monkeypatch.setattr(engines[0], "step", fail)
    lane = Lane(engines[0], partition, "small")
    for request in requests():
        lane.submit(request)
    beside = run(engines[1])
    events = wait_for(lane, is_over)
    ended = {event.request_id: event for event in events if event.finish_reason is not None}
    said = "model small: RuntimeError: a planted fault"
    assert {(end.error, end.error_kind) for end in ended.values()} == {(said, "engine")}
    for name, end in ended.items():
        assert end.index == sum(each.request_id == name for each in events) - 1
    assert len(tokens_of(beside)) == len(requests())
    assert lane.error == said
    lane.submit(requests()[0])
    (refused,) = wait_for(lane, bool)
    assert (refused.error, refused.error_kind) == (said, "engine")
    assert lane.close() == []
    engines[0].abort_all()


def lane_thread() -> int:
    (thread,) = [each for each in threading.enumerate() if each.name == "lane small"]
    assert thread.native_id is not None
    return thread.native_id


def seconds_of(task: int) -> float:
    return int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[0]) / 1e9
