"""The scheduler's policy, by example."""

from typing import Any

import pytest

from moe_serve.schedule.scheduler import Scheduler
from moe_serve.types import SampledToken, StepOutput


def spans(batch: Any) -> list[tuple[str, int, int, bool]]:
    """Each chunk as (request, first position, end, samples)."""
    return [
        (chunk.request_id, chunk.start, chunk.start + len(chunk.token_ids), chunk.samples)
        for chunk in batch.chunks
    ]


def test_one_request_from_prompt_to_length(world_type: Any, make_request: Any) -> None:
    world = world_type()
    world.add(make_request("a", (1, 2, 3), max_tokens=3))
    assert spans(world.begin_step()) == [("a", 0, 3, True)]
    world.end_step()
    assert spans(world.begin_step()) == [("a", 3, 4, True)]
    world.end_step()
    last = world.step()[0]
    assert (last.index, last.finish_reason) == (2, "length")
    assert not world.scheduler.has_work and world.begin_step().chunks == ()
    assert (world.scheduler.num_prompt_tokens, world.scheduler.num_generated_tokens) == (3, 3)
    world.check_end()


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"end_token_ids": (7,)}, "stop"),
        ({"stop_token_ids": (7,)}, "stop"),
        ({"end_token_ids": (7,), "ignore_eos": True}, None),
        ({"stop_token_ids": (7,), "ignore_eos": True}, "stop"),
        ({"end_token_ids": (7,), "max_tokens": 1}, "stop"),
        ({"max_tokens": 1}, "length"),
    ],
)
def test_what_ends_a_request(
    asked: dict[str, Any], reason: str | None, world_type: Any, make_request: Any
) -> None:
    scheduler = world_type().scheduler
    scheduler.add(make_request("a", (1, 2), **asked))
    scheduler.schedule()
    token = SampledToken("a", 7, -0.5, ((7, -0.5),))
    (event,) = scheduler.update(StepOutput((token,)))
    assert (event.token_id, event.logprob, event.top_logprobs) == (7, -0.5, ((7, -0.5),))
    assert event.finish_reason == reason
    assert scheduler.has_work == (reason is None)


def test_long_prompt_is_computed_in_chunks_beside_decoding(
    world_type: Any, make_request: Any
) -> None:
    world = world_type(max_tokens_per_step=8)
    world.add(make_request("a", (1,), max_tokens=9))
    world.step()
    world.add(make_request("b", tuple(range(20)), max_tokens=2))
    world.add(make_request("c", (5, 5), max_tokens=2))
    steps = []
    for _ in range(4):
        steps.append(spans(world.begin_step()))
        world.end_step()
    assert steps == [
        [("a", 1, 2, True), ("b", 0, 7, False)],
        [("a", 2, 3, True), ("b", 7, 14, False)],
        [("a", 3, 4, True), ("b", 14, 20, True), ("c", 0, 1, False)],
        [("a", 4, 5, True), ("b", 20, 21, True), ("c", 1, 2, True)],
    ]
    world.run_until_idle()
    world.check_end()


def test_preemption_recomputes_the_latest_and_changes_no_token(
    world_type: Any, make_request: Any
) -> None:
    world = world_type(num_pages=6, page_size=2, prefix_caching=False)
    world.add(make_request("a", (1, 2), max_tokens=9))
    world.add(make_request("b", (3, 4), max_tokens=8))
    while not world.scheduler.num_preemptions:
        world.step()
    assert (world.scheduler.num_running, world.scheduler.num_waiting) == (1, 1)
    num_answered = len(world.answers["b"])
    assert num_answered > 1
    while world.is_live("a"):
        world.step()
    assert spans(world.begin_step()) == [("b", 0, 2 + num_answered, True)]
    world.end_step()
    world.run_until_idle()
    assert world.scheduler.num_generated_tokens == 17
    world.check_end()


def test_preempted_pages_are_found_again(world_type: Any, make_request: Any) -> None:
    world = world_type(num_pages=7, page_size=2)
    world.add(make_request("a", (1, 2, 3), max_tokens=8))
    world.add(make_request("b", (5, 6), max_tokens=10))
    while not world.scheduler.num_preemptions:
        world.step()
    world.abort("a")
    (chunk,) = world.begin_step().chunks
    assert chunk.request_id == "b" and chunk.start > 0
    world.end_step()
    world.run_until_idle()
    assert world.first_events["b"].num_cached_tokens == 0
    world.check_end()


def test_abort_in_the_middle_of_a_step_drops_its_result(world_type: Any, make_request: Any) -> None:
    world = world_type()
    for name in "ab":
        world.add(make_request(name, (1, 2, 3, 4, 5), max_tokens=4, tenant=int(name == "b")))
    world.begin_step()
    world.abort("a")
    assert world.scheduler.num_pages_used == 2
    # The name is free at once, and the old step's token is not the new request's.
    world.scheduler.add(make_request("a", (7, 7), max_tokens=1))
    events = world.end_step()
    assert [event.request_id for event in events] == ["b"]
    assert spans(world.scheduler.schedule()) == [("b", 5, 6, True), ("a", 0, 2, True)]


def test_abort_of_waiting_and_unknown_requests(world_type: Any, make_request: Any) -> None:
    world = world_type()
    world.add(make_request("a", (1,)))
    world.abort("a")
    assert world.scheduler.abort("a") is None
    assert not world.scheduler.has_work


def test_decoding_copies_neither_tokens_nor_pages(world_type: Any, make_request: Any) -> None:
    world = world_type(num_pages=64, page_size=4)
    world.add(make_request("a", tuple(range(8)), max_tokens=20))
    world.step()
    tables = []
    for _ in range(8):
        (chunk,) = world.begin_step().chunks
        assert len(chunk.token_ids) == 1
        tables.append(chunk.page_ids)
        world.end_step()
    assert len({id(table) for table in tables}) == 2


def test_results_must_be_those_of_the_batch(make_request: Any, world_type: Any) -> None:
    scheduler: Scheduler = world_type().scheduler
    scheduler.add(make_request("a", (1,)))
    scheduler.schedule()
    with pytest.raises(AssertionError, match="not updated yet"):
        scheduler.schedule()
    with pytest.raises(AssertionError, match="0 tokens came for 1 sampling"):
        scheduler.update(StepOutput())
