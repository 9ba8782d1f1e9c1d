"""An mpirun that was lost is started again: its ranks compute as before, or are turned away."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from world_runs import (
    Worlds,
    begin,
    end_well,
    ended,
    kill,
    metric,
    range_of,
    tokens,
    wait_for_metric,
)

# Python, torch and the checkpoint are loaded anew.
COMEBACK_SECONDS = 40.0


@pytest.mark.slow
def test_an_experts_pool_comes_back(worlds: Worlds, checkpoint: Callable[..., Path]) -> None:
    """While streams are open, and with experts that were loaded elsewhere meanwhile."""
    url, (front, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 8)]), ("far", 1, "experts", [range_of(6, 12)])]
    )
    expected = tokens(url)
    interrupted = begin(url)
    kill(far)
    assert ended(interrupted) == expected
    other = checkpoint("qwen3_moe", max_position_embeddings=4096, seed=1)
    for change, said in (
        ("scheduler.max_sequences=9", "read a config with digest"),
        (f"model.path={other}", "reads weights of model.path with digest"),
    ):
        stranger = worlds.start_again("far", "--set", change)
        assert stranger.wait_for_end(30.0) == 2
        assert "plan rank 1 on host" in stranger.error_lines[0]
        assert said in stranger.error_lines[0]
    assert tokens(url) == expected
    assert metric(url, "moe_serve_membership_epoch") == 1
    again = worlds.start_again("far")
    while metric(url, "moe_serve_lost_ranks"):
        # Under open streams.
        assert again.seconds_since_start() < COMEBACK_SECONDS, again.errors
        assert tokens(url) == expected
    assert metric(url, "moe_serve_membership_epoch") == 2
    check_rows(url, 1, expected)
    end_well(front, again)


@pytest.mark.slow
def test_ranks_of_one_mpirun_come_back_beyond_a_bridge(worlds: Worlds) -> None:
    """Those that sleep wake for it; others, of a higher plan rank, call them where they are now.
    One that ends before it is ready does no harm, and a second loss is as good as the first."""
    pools = [
        ("front", 2, "both", [range_of(0, 8), range_of(6, 12)]),
        ("far", 2, "experts", [range_of(0, 5), range_of(5, 12)]),
        ("farther", 1, "experts", [range_of(3, 9)]),
    ]
    links = [
        {"between": [one, other], "bandwidth": "1GB/s", "wire": "float32"}
        for one, other in (("front", "far"), ("front", "farther"), ("far", "farther"))
    ]
    url, (front, far, farther) = worlds.start(pools, links=links)
    expected = tokens(url)
    for epoch in (1, 3):
        kill(far)
        wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 2, 20.0)
        early = worlds.start_again("far")
        while not early.ranks():
            time.sleep(0.05)
        time.sleep(1.0 if epoch == 1 else 2.0)
        kill(early)
        assert metric(url, "moe_serve_membership_epoch") == epoch
        far = worlds.start_again("far")
        wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, COMEBACK_SECONDS)
        check_rows(url, 2, expected)
        check_rows(url, 3, expected)
    end_well(front, far, farther)


@pytest.mark.slow
def test_devices_meet_again(worlds: Worlds) -> None:
    """A process group of torch's spans the mpiruns, and attention is shared."""
    url, (front, far) = worlds.start(
        [
            ("front", 2, "both", [range_of(0, 5), range_of(4, 8)]),
            ("far", 1, "experts", [range_of(6, 12)]),
        ],
        collective="gloo",
        shards=2,
    )
    expected = tokens(url)
    kill(far)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    interrupted = begin(url)
    again = worlds.start_again("far")
    assert ended(interrupted) == expected
    while metric(url, "moe_serve_lost_ranks"):
        assert again.seconds_since_start() < COMEBACK_SECONDS, again.errors
        assert tokens(url) == expected
    check_rows(url, 2, expected)
    end_well(front, again)


@pytest.mark.slow
def test_one_of_two_lost_pools_comes_back(worlds: Worlds) -> None:
    """What was refused for want of room is served again when both are there."""
    url, (front, far, farther) = worlds.start(
        [
            ("front", 1, "both", [range_of(0, 6)]),
            ("far", 1, "experts", [range_of(4, 10)]),
            ("farther", 1, "experts", [range_of(8, 12)]),
        ],
        cache={"page_size": 16, "num_pages": 0},
    )
    expected = tokens(url)
    kill(far)
    kill(farther)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 2, 20.0)
    assert httpx.get(f"{url}/ready").status_code == 503
    far = worlds.start_again("far")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, COMEBACK_SECONDS)
    farther = worlds.start_again("farther")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, COMEBACK_SECONDS)
    assert httpx.get(f"{url}/ready").status_code == 200
    check_rows(url, 1, expected)
    check_rows(url, 2, expected)
    end_well(front, far, farther)


@pytest.mark.slow
def test_a_pool_that_takes_requests_comes_back(worlds: Worlds) -> None:
    url, (front, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 12)]), ("far", 1, "both", [range_of(0, 12)])]
    )
    expected = tokens(url)
    kill(far)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    assert tokens(url) == expected
    again = worlds.start_again("far")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, COMEBACK_SECONDS)
    generated = 'moe_serve_generated_tokens_total{rank="1"}'
    before = metric(url, generated)
    assert tokens(url) == expected
    wait_for_metric(url, generated, lambda number: number > before, 5.0)
    end_well(front, again)


def check_rows(url: str, rank: int, expected: list[list[str]]) -> None:
    """Right answers come, and a rank has its part in them."""
    name = f'moe_serve_expert_rows_total{{rank="{rank}"}}'
    before = metric(url, name)
    assert tokens(url) == expected
    wait_for_metric(url, name, lambda rows: rows > before, 5.0)
