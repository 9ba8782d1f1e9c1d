"""Steps with fewer tokens than the scheduler may have."""

from typing import Any

import pytest


def spans(batch: Any) -> list[tuple[str, int, int]]:
    """Each chunk as (request, first position, end)."""
    return [
        (chunk.request_id, chunk.start, chunk.start + len(chunk.token_ids))
        for chunk in batch.chunks
    ]


def decoding_world(world_type: Any, make_request: Any, names: str) -> Any:
    world = world_type()
    for name in names:
        world.add(make_request(name, (ord(name) % 6, 1), max_tokens=60, ignore_eos=True))
    world.step()
    return world


def test_decoding_comes_first_and_a_prompt_gets_the_rest(
    world_type: Any, make_request: Any
) -> None:
    world = decoding_world(world_type, make_request, "ab")
    world.add(make_request("c", tuple(range(12))))
    assert spans(world.begin_step(5)) == [("a", 2, 3), ("b", 2, 3), ("c", 0, 3)]
    world.end_step()
    assert spans(world.begin_step(4)) == [("a", 3, 4), ("b", 3, 4), ("c", 3, 5)]
    world.end_step()
    # No more than any step may have.
    assert world.begin_step(1000).num_tokens == 2 + 7


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 6])
def test_all_that_decode_take_turns_where_they_do_not_fit(
    max_tokens: int, world_type: Any, make_request: Any
) -> None:
    names = "abcdefg"
    world = decoding_world(world_type, make_request, names)
    longest_wait = -(-len(names) // max_tokens)
    waits = dict.fromkeys(names, 0)
    for _ in range(40):
        batch = world.begin_step(max_tokens)
        assert batch.num_tokens == max_tokens
        served = {chunk.request_id for chunk in batch.chunks}
        waits = {name: 0 if name in served else waits[name] + 1 for name in names}
        assert max(waits.values()) < longest_wait
        world.end_step()
    counts = [len(world.answers[name]) for name in names]
    assert max(counts) - min(counts) <= 1


def test_who_comes_later_takes_turns_as_well(world_type: Any, make_request: Any) -> None:
    world = decoding_world(world_type, make_request, "abc")
    for _ in range(5):
        world.begin_step(2)
        world.end_step()
    world.add(make_request("d", (5,), max_tokens=60))
    world.step()
    num_before = {name: len(answer) for name, answer in world.answers.items()}
    for _ in range(8):
        world.begin_step(1)
        world.end_step()
    gained = [len(world.answers[name]) - num_before[name] for name in "abcd"]
    assert gained == [2, 2, 2, 2]


def test_a_cancelled_step_is_formed_anew(world_type: Any, make_request: Any) -> None:
    world = decoding_world(world_type, make_request, "a")
    world.add(make_request("b", tuple(range(9)), max_tokens=2))
    first = world.begin_step(6)
    world.cancel_step()
    assert world.begin_step(6) == first
    world.cancel_step()
    # Who ends meanwhile is missing, and nobody else is held up.
    world.abort("a")
    assert spans(world.begin_step()) == [("b", 0, 9)]
    world.end_step()
    world.run_until_idle()
    world.check_end()
