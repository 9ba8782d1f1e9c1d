"""Two mpiruns serve as one; one of them dies, or falls silent, in the middle of streams."""

import signal
import sys
import time
from pathlib import Path

import httpx
import pytest
from world_runs import NUM_TOKENS, Worlds, begin, ended, kill, metric, range_of, streams, tokens

# A silence of 2 s counts as a loss; the rest is for a crowded machine.
PAUSE_SECONDS = 20.0
FORGETFUL = Path(__file__).parent / "forgetful_rank.py"


def test_an_experts_pool_dies_in_mid_stream(worlds: Worlds) -> None:
    """Some of its experts have replicas, the others are loaded where the rest is."""
    url, (front, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 8)]), ("far", 1, "experts", [range_of(6, 12)])]
    )
    expected = tokens(url)
    interrupted = begin(url)
    killed = time.monotonic()
    kill(far)
    assert ended(interrupted) == expected
    assert time.monotonic() - killed < PAUSE_SECONDS
    assert tokens(url) == expected
    assert metric(url, "moe_serve_lost_ranks") == 1
    assert metric(url, "moe_serve_membership_epoch") == 1
    assert httpx.get(f"{url}/ready").status_code == 200
    front.process.send_signal(signal.SIGUSR1)
    assert front.wait_for_end(30.0) == 0, front.errors


@pytest.mark.slow
def test_an_experts_pool_is_stopped_beyond_a_bridge(worlds: Worlds) -> None:
    """It closes nothing and says nothing; ranks of one mpirun are left in exchanges of MPI."""
    url, (front, far) = worlds.start(
        [
            ("front", 2, "both", [range_of(0, 8), range_of(6, 12)]),
            ("far", 2, "experts", [range_of(0, 5), range_of(5, 12)]),
        ],
        links=[{"between": ["front", "far"], "bandwidth": "1GB/s", "wire": "float32"}],
        deadline="2s",
    )
    expected = tokens(url)
    interrupted = begin(url)
    stopped = time.monotonic()
    for process in far.ranks():
        process.suspend()
    assert ended(interrupted) == expected
    assert 2.0 < time.monotonic() - stopped < PAUSE_SECONDS
    for process in far.ranks():
        process.resume()
    assert far.wait_for_end(20.0) == 1
    assert "plan rank 0" in far.errors
    assert tokens(url) == expected
    front.process.send_signal(signal.SIGUSR1)
    assert front.wait_for_end(30.0) == 0, front.errors


@pytest.mark.slow
def test_a_pool_that_takes_requests_dies(worlds: Worlds) -> None:
    """What it ran goes on elsewhere, greedy or drawn, and with penalties, from where it was."""
    url, (_, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 12)]), ("far", 1, "both", [range_of(0, 12)])]
    )
    drawn = {"temperature": 1.0, "seed": 7, "frequency_penalty": 0.5, "repetition_penalty": 1.2}
    greedy, expected = tokens(url), tokens(url, **drawn)
    interrupted = begin(url, **drawn)
    while not metric(url, 'moe_serve_running{rank="1"}'):
        assert all(each.is_open for each in interrupted)
    kill(far)
    assert ended(interrupted) == expected
    assert tokens(url) == greedy


@pytest.mark.slow
def test_experts_that_fit_nowhere(worlds: Worlds) -> None:
    """Whoever asks is told what is missing; draining still ends well."""
    url, (front, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 8)]), ("far", 1, "experts", [range_of(6, 12)])],
        cache={"page_size": 16, "num_pages": 0},
    )
    interrupted = begin(url)
    kill(far)
    for each in interrupted:
        each.wait_for_end(30.0)
        assert each.error is not None
        assert "has no room for" in each.error["message"]
    assert httpx.get(f"{url}/ready").status_code == 503
    answer = httpx.post(f"{url}/v1/completions", json={"prompt": [5], "max_tokens": 1})
    assert answer.status_code == 503
    assert "expert 8 of layer 0" in answer.json()["error"]["message"]
    front.process.send_signal(signal.SIGUSR1)
    assert front.wait_for_end(30.0) == 0, front.errors


@pytest.mark.slow
def test_a_repeated_token_would_be_seen(worlds: Worlds) -> None:
    def forgetful(config: Path, *words: str) -> list[str]:
        return [sys.executable, str(FORGETFUL), "--config", str(config), *words]

    url, (_, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 12)]), ("far", 1, "both", [range_of(0, 12)])],
        command=forgetful,
    )
    expected = tokens(url)
    interrupted = begin(url)
    while not metric(url, 'moe_serve_running{rank="1"}'):
        assert all(each.is_open for each in interrupted)
    kill(far)
    for each in interrupted:
        each.wait_for_end(60.0)
    wrong = [got for got, right in zip(interrupted, expected, strict=True) if got.tokens != right]
    assert wrong
    assert {len(each.tokens) for each in wrong} == {NUM_TOKENS + 1}


@pytest.mark.slow
def test_a_prefill_pool_dies(worlds: Worlds) -> None:
    """Under prompts on their way and under answers; then those who decode prefill as well."""
    url, (_, far) = worlds.start(
        [("front", 1, "decode", [range_of(0, 12)]), ("far", 1, "prefill", [range_of(0, 12)])],
        scheduler={"max_local_prefill": 1},
    )
    expected = tokens(url)
    assert metric(url, 'moe_serve_prompt_tokens_total{rank="1"}') > 0
    interrupted = begin(url)
    late = streams(url)
    kill(far)
    assert ended(interrupted) == expected
    assert ended(late) == expected
    assert tokens(url) == expected
    assert metric(url, "moe_serve_lost_ranks") == 1
