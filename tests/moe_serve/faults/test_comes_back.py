"""An mpirun that was lost is started again: its ranks compute as before, or are turned away."""

import signal

import pytest
from world_runs import (
    Worlds,
    begin,
    ended,
    kill,
    metric,
    range_of,
    tokens,
    wait_for_metric,
)

# Python, torch and the checkpoint are loaded anew.
COMEBACK_SECONDS = 40.0
ROWS = 'moe_serve_expert_rows_total{rank="%d"}'


def test_an_experts_pool_comes_back(worlds: Worlds) -> None:
    """While streams are open, and with experts that were loaded elsewhere meanwhile."""
    url, (front, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 8)]), ("far", 1, "experts", [range_of(6, 12)])]
    )
    expected = tokens(url)
    interrupted = begin(url)
    kill(far)
    assert ended(interrupted) == expected
    stranger = worlds.start_again("far", "--set", "scheduler.max_sequences=9")
    assert stranger.wait_for_end(30.0) == 2
    assert "plan rank 1 on host" in stranger.error_lines[0]
    assert "read a config with digest" in stranger.error_lines[0]
    assert tokens(url) == expected
    assert metric(url, "moe_serve_membership_epoch") == 1
    again = worlds.start_again("far")
    while metric(url, "moe_serve_lost_ranks"):
        # It is met under open streams as well as between them.
        assert again.seconds_since_start() < COMEBACK_SECONDS, again.errors
        assert tokens(url) == expected
    assert metric(url, "moe_serve_membership_epoch") == 2
    before = metric(url, ROWS % 1)
    assert tokens(url) == expected
    wait_for_metric(url, ROWS % 1, lambda rows: rows > before, 5.0)
    front.process.send_signal(signal.SIGUSR1)
    assert front.wait_for_end(30.0) == 0, front.errors
    assert again.wait_for_end(30.0) == 0, again.errors
