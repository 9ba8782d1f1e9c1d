"""A burst that is more than the ranks may hold, with a server of its own."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import openai
import pytest
from live_server import LiveServer, live_server, server_config
from quick import quick_among

pytestmark = pytest.mark.slow

NUM_REQUESTS = 8
MAX_SEQUENCES, MAX_WAITING = 2, 1


@pytest.fixture(scope="module")
def small_server(
    served_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    limits = {"max_sequences": MAX_SEQUENCES, "max_waiting": MAX_WAITING}
    config = server_config(served_path, 1, scheduler=limits)
    with live_server(tmp_path_factory.mktemp("small"), 1, config) as running:
        yield running


def burst(server: LiveServer, streamed: bool) -> Sequence[httpx.Response]:
    """What as many requests bring, sent at the same time and each too long to make room soon."""
    body = {"prompt": [5, 6, 7], "max_tokens": 400, "ignore_eos": True, "stream": streamed}

    async def send(http: httpx.AsyncClient) -> httpx.Response:
        return await http.post(f"{server.url}/v1/completions", json=body)

    async def send_all() -> Sequence[httpx.Response]:
        async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
            return await asyncio.gather(*(send(http) for _ in range(NUM_REQUESTS)))

    return asyncio.run(send_all())


@pytest.mark.parametrize("streamed", quick_among([False, True], [True]))
def test_a_burst_is_served_up_to_the_limit_and_the_rest_refused(
    small_server: LiveServer, streamed: bool
) -> None:
    answers = burst(small_server, streamed)
    statuses = sorted(answer.status_code for answer in answers)
    num_held = MAX_SEQUENCES + MAX_WAITING
    assert statuses == [200] * num_held + [429] * (NUM_REQUESTS - num_held)
    for answer in answers:
        if answer.status_code == 429:
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "overloaded")
            assert f"{num_held} may" in error["message"]
            assert "scheduler.max_waiting" in error["message"]


def test_the_client_knows_it_as_a_rate_limit_and_more_choices_as_a_bad_request(
    small_server: LiveServer, connect: Callable[..., openai.OpenAI]
) -> None:
    with connect(small_server) as client:
        with pytest.raises(openai.BadRequestError, match="4 choices are more than the 3") as raised:
            client.completions.create(model="tiny", prompt="Hello", n=4)
        assert raised.value.param == "n"
        assert len(client.completions.create(model="tiny", prompt="Hello", n=3).choices) == 3
        several = ["Hello"] * 5
        with pytest.raises(openai.RateLimitError) as full:
            client.completions.create(model="tiny", prompt=several)
        assert full.value.code == "overloaded"
