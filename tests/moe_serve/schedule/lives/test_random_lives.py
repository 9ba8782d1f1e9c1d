"""Random lives of a scheduler: led by hypothesis, and long ones from seeds."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from moe_serve.types import Request


def test_random_lives(run_lives: Callable[..., None]) -> None:
    run_lives(max_examples=120, stateful_step_count=40)


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_many_requests_in_few_pages_get_the_tokens_they_get_alone(
    prefix_caching: bool, world_type: Any, make_request: Callable[..., Request]
) -> None:
    random = Random(7)
    world = world_type(
        num_pages=24,
        page_size=4,
        max_tokens_per_step=32,
        max_sequences=12,
        max_live=300,
        prefix_caching=prefix_caching,
    )
    for number in range(300):
        head = random.choice([(), tuple(range(8)), tuple(range(19))])
        tail = tuple(random.randint(0, 5) for _ in range(random.randint(1, 20)))
        world.add(make_request(f"r{number}", head + tail, max_tokens=random.randint(1, 50)))
    world.run_until_idle()
    assert Counter(world.reasons.values()) == {"length": 300}
    assert world.scheduler.num_preemptions > 100
    assert (world.scheduler.num_cached_tokens > 1000) == prefix_caching
    world.check_end()
