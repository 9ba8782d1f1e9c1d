"""Who is let in, when, and with which pages."""

from dataclasses import replace
from typing import Any

import pytest

from moe_serve.errors import ConfigError, OverloadedError, RequestError


def spans(batch: Any) -> list[tuple[str, int, int, bool]]:
    """Each chunk as (request, first position, end, samples)."""
    return [
        (chunk.request_id, chunk.start, chunk.start + len(chunk.token_ids), chunk.samples)
        for chunk in batch.chunks
    ]


def test_choices_of_one_prompt_compute_it_once(world_type: Any, make_request: Any) -> None:
    world = world_type(max_tokens_per_step=6)
    prompt = tuple(range(1, 15))
    for name in "abcd":
        world.add(make_request(name, prompt, max_tokens=4))
    world.add(make_request("other", (9, 9), max_tokens=4))
    steps = []
    for _ in range(4):
        steps.append(spans(world.begin_step()))
        world.end_step()
    # Others pass those who wait for the first to compute what they share: three pages of four.
    assert steps[:3] == [
        [("a", 0, 6, False)],
        [("a", 6, 12, False)],
        [("a", 12, 14, True), ("b", 12, 14, True), ("c", 12, 14, True)],
    ]
    world.run_until_idle()
    assert [world.first_events[name].num_cached_tokens for name in "abcd"] == [0, 12, 12, 12]
    assert world.scheduler.num_cached_tokens == 36
    assert world.scheduler.num_prompt_tokens == 4 * 14 + 2
    world.check_end()


def test_others_pass_who_wait_for_a_shared_prefix(world_type: Any, make_request: Any) -> None:
    world = world_type()
    world.add(make_request("a", (1, 2, 3, 4, 5), max_tokens=2))
    world.add(make_request("b", (1, 2, 3, 4, 6), max_tokens=2))
    world.add(make_request("c", (8, 8, 8, 8, 8), max_tokens=2))
    assert spans(world.begin_step()) == [("a", 0, 5, True), ("c", 0, 5, True)]
    world.end_step()
    assert ("b", 4, 5, True) in spans(world.begin_step())


def test_who_waits_for_a_shared_prefix_keeps_a_place(world_type: Any, make_request: Any) -> None:
    world = world_type(max_sequences=2)
    world.add(make_request("a", (1, 2, 3, 4, 5), max_tokens=2))
    world.add(make_request("b", (1, 2, 3, 4, 6), max_tokens=2))
    world.add(make_request("c", (8, 8, 8, 8, 8), max_tokens=2))
    assert spans(world.begin_step()) == [("a", 0, 5, True)]
    world.end_step()
    assert spans(world.begin_step()) == [("a", 5, 6, True), ("b", 4, 5, True)]


def test_end_of_a_forerunner_ends_the_wait(world_type: Any, make_request: Any) -> None:
    world = world_type(max_tokens_per_step=4)
    prompt = tuple(range(1, 13))
    world.add(make_request("a", prompt))
    world.add(make_request("b", prompt))
    world.step()
    world.begin_step()
    world.abort("a")
    world.end_step()
    assert spans(world.begin_step()) == [("b", 4, 8, False)]


def test_answer_is_a_prefix_for_the_next_turn(world_type: Any, make_request: Any) -> None:
    world = world_type()
    world.add(make_request("a", (1, 2, 3), max_tokens=6))
    world.run_until_idle()
    turn = (*world.history("a"), 1, 1)
    world.add(make_request("b", turn, max_tokens=2))
    world.add(make_request("c", turn, max_tokens=2, tenant=1))
    world.run_until_idle()
    # Nine tokens, of which the last was never computed: two full pages of four.
    assert world.first_events["b"].num_cached_tokens == 8
    assert world.first_events["c"].num_cached_tokens == 0
    world.check_end()


def test_a_full_rank_refuses_with_the_number(world_type: Any, make_request: Any) -> None:
    world = world_type(max_sequences=1, max_live=2)
    world.add(make_request("a", (1,), max_tokens=2))
    world.add(make_request("b", (1,), max_tokens=2))
    for _ in range(2):
        with pytest.raises(OverloadedError, match=r"2 requests run or wait .* 2 may; .*max_waiti"):
            world.add(make_request("c", (1,)))
        # Who runs counts as who waits does.
        if not world.scheduler.num_running:
            world.step()
    world.abort("b")
    world.add(make_request("c", (1,)))


def test_who_was_admitted_elsewhere_enters_a_full_rank(world_type: Any, make_request: Any) -> None:
    """With tokens that came back before its rank was lost, or without any."""
    world = world_type(max_sequences=1, max_live=1)
    world.add(make_request("a", (1,), max_tokens=2))
    for name in "bc":
        world.add(replace(make_request(name, (1, 2), max_tokens=2), was_admitted=True))
    with pytest.raises(OverloadedError, match=r"3 requests run or wait .* 1 may"):
        world.add(make_request("d", (1,)))
    world.run_until_idle()
    world.check_end()


@pytest.mark.parametrize(
    ("num_prompt", "max_tokens", "message", "parameter"),
    [
        (0, 4, "the prompt has 0 tokens", "prompt"),
        (3, 0, "max_tokens is 0", "max_tokens"),
        (40, 25, "40 prompt tokens and max_tokens 25 make 65 tokens, the context holds 64", None),
        (64, 1, "make 65 tokens, the context holds 64", "prompt"),
        (30, 20, "make 50 tokens in 13 cache pages of 4, the rank has 12", "max_tokens"),
    ],
)
def test_what_never_fits_is_refused(
    num_prompt: int,
    max_tokens: int,
    message: str,
    parameter: str | None,
    world_type: Any,
    make_request: Any,
) -> None:
    world = world_type(num_pages=12, max_context=64)
    with pytest.raises(RequestError, match=message) as refused:
        world.add(make_request("a", tuple(range(num_prompt)), max_tokens=max_tokens))
    assert parameter is None or refused.value.parameter == parameter
    assert not isinstance(refused.value, OverloadedError) and not world.scheduler.has_work


def test_what_just_fits_is_served(world_type: Any, make_request: Any) -> None:
    world = world_type(num_pages=12, max_context=64)
    world.add(make_request("a", tuple(range(30)), max_tokens=19))
    world.run_until_idle()
    assert world.reasons == {"a": "length"}
    world.check_end()


def test_no_more_run_than_can_decode_in_one_step(world_type: Any, make_request: Any) -> None:
    world = world_type(max_tokens_per_step=3, max_sequences=8)
    for number in range(6):
        world.add(make_request(f"r{number}", (number,), max_tokens=5))
    world.step()
    assert (world.scheduler.num_running, world.scheduler.num_waiting) == (3, 3)
    assert len(world.begin_step().chunks) == 3


@pytest.mark.parametrize(
    ("limit", "key"),
    [("num_pages", "cache.num_pages"), ("max_tokens_per_step", "scheduler.max_tokens_per_step")],
)
def test_a_limit_of_zero_is_a_config_error(limit: str, key: str, world_type: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key} is 0"):
        world_type(**{limit: 0})
