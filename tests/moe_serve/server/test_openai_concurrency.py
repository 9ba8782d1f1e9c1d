"""Many clients at once, and clients that leave."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from families import NUM_SPECIAL, VOCAB_SIZE

NUM_REQUESTS = 40
SECONDS_TO_FREE = 1.0


def bodies(number: int, seed: int) -> list[dict[str, Any]]:
    """Requests of mixed lengths: every other one greedy, the others with a seed of their own."""
    generator = np.random.default_rng(seed)
    return [
        {
            "prompt": generator.integers(
                NUM_SPECIAL, VOCAB_SIZE, generator.integers(1, 120)
            ).tolist(),
            "max_tokens": int(generator.integers(3, 11)),
            "temperature": place % 2,
            "seed": place,
            "logprobs": 2,
            "extra_body": {"ignore_eos": True},
        }
        for place in range(number)
    ]


def test_each_of_many_gets_what_it_gets_alone(
    complete: Callable[..., Any],
    complete_at_once: Callable[..., Any],
    metric: Callable[[str], float],
) -> None:
    asked = bodies(NUM_REQUESTS, seed=0)
    steps_before = metric("moe_serve_steps_total")
    together = complete_at_once(asked)
    num_steps = (metric("moe_serve_steps_total") - steps_before) / 2
    num_tokens = sum(answer.usage.completion_tokens for answer in together)
    assert num_tokens == sum(body["max_tokens"] for body in asked)
    assert num_steps < num_tokens / 4, "they were not computed together"
    for body, answer in zip(asked, together, strict=True):
        assert complete(**body).choices == answer.choices


def test_a_seed_does_not_mind_thirty_others(
    complete: Callable[..., Any], complete_at_once: Callable[..., Any]
) -> None:
    seeded = {"prompt": "Seventeen small ships", "seed": 3, "temperature": 1, "max_tokens": 24}
    alone = complete(**seeded)
    others = [{**body, "seed": None, "temperature": 1} for body in bodies(30, seed=1)]
    for place in (0, 15, 30):
        answers = complete_at_once([*others[:place], seeded, *others[place:]])
        assert answers[place].choices == alone.choices


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture
def is_idle(metric: Callable[[str], float]) -> Callable[[], bool]:
    names = ("moe_serve_pages_used", "moe_serve_running", "moe_serve_waiting")
    return lambda: not any(metric(name) for name in names)


@pytest.mark.parametrize("num_clients", [1, 6])
def test_the_pages_of_those_who_leave_a_stream_are_free_within_a_second(
    num_clients: int,
    complete: Callable[..., Any],
    metric: Callable[[str], float],
    is_idle: Callable[[], bool],
) -> None:
    assert wait_for(is_idle, 5)
    streams = [
        complete(prompt=f"Client {number}", max_tokens=900, stream=True)
        for number in range(num_clients)
    ]
    for stream in streams:
        next(stream)
    assert wait_for(lambda: metric("moe_serve_pages_used") >= num_clients, 5)
    generated = metric("moe_serve_generated_tokens_total")
    for stream in streams:
        stream.close()
    assert wait_for(is_idle, SECONDS_TO_FREE), "pages are still used"
    assert metric("moe_serve_live_requests") == 0
    ended_early = metric("moe_serve_generated_tokens_total") - generated
    assert ended_early < num_clients * 500


def test_the_pages_of_one_who_gives_up_waiting_are_free_within_a_second(
    http: httpx.Client, metric: Callable[[str], float], is_idle: Callable[[], bool]
) -> None:
    assert wait_for(is_idle, 5)
    body = {"prompt": "Patience", "max_tokens": 900, "n": 2, "temperature": 0}
    with (
        httpx.Client(base_url=http.base_url, timeout=0.7, trust_env=False) as hasty,
        pytest.raises(httpx.ReadTimeout),
    ):
        hasty.post("/v1/completions", json=body)
    assert wait_for(is_idle, SECONDS_TO_FREE), "pages are still used"
    assert metric("moe_serve_live_requests") == 0
