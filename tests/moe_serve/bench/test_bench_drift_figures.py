"""The arithmetic of the drift benchmark: what counts as moving, and what rows make of it."""

from dataclasses import replace

import numpy as np
import pytest

from moe_serve.bench.drift import heaviest
from moe_serve.bench.drift_client import Look
from moe_serve.bench.drift_figures import (
    REBALANCING,
    STAYS,
    DriftPhase,
    Gaps,
    drift_rows,
    moving_times,
    split_gaps,
)
from moe_serve.bench.stream import Stream
from moe_serve.errors import ConfigError


def looks(*seen: tuple[int, bool]) -> list[Look]:
    """One each second, from 0."""
    return [Look(float(at), epoch, moving) for at, (epoch, moving) in enumerate(seen)]


def test_experts_move_between_looks_that_say_so_or_differ_in_their_plan() -> None:
    still = looks((0, False), (0, False))
    assert moving_times(still).shape == (0, 2)
    seen = looks((0, False), (0, True), (0, True), (1, False), (1, False), (1, False), (2, False))
    assert moving_times(seen).tolist() == [[0.0, 3.0], [5.0, 6.0]]


def test_gaps_are_split_by_what_lies_in_them() -> None:
    answers = [Stream(0.0, (1.0, 2.0, 4.5, 5.0, 6.0, 9.0)), Stream(0.0, (5.5, 5.75)), Stream(0, ())]
    found = split_gaps(answers, np.array([[3.0, 4.0], [5.2, 5.3]]))
    # From 2 to 4.5 lies around a move; 4.5 to 5 is before the second.
    assert found.moving_G.tolist() == [2.5, 1.0]
    assert found.before_G.tolist() == [1.0, 0.5]
    assert found.after_G.tolist() == [3.0, 0.25]
    assert found.ratio == 2.5
    assert split_gaps(answers, np.zeros((0, 2))).ratio is None


def phase(run: str, number: int, speed: float, moving: float = 0.1) -> DriftPhase:
    """A hundred gaps of 100 ms before a move, and as many in it, of which two are longer."""
    gap_G = np.full(100, 0.1)
    moving_G = np.append(gap_G[2:], [moving] * 2) if run == REBALANCING else gap_G[:0]
    return DriftPhase(
        run=run,
        number=number,
        gaps=Gaps(moving_G, gap_G, gap_G[:0]),
        tokens_per_second=speed,
        epoch=number,
        moved_bytes=2_000_000,
        load_over_mean=1.5,
        overruns=0.01,
    )


def phases(speed: float, moving: float) -> list[DriftPhase]:
    return [
        *(phase(STAYS, number, 100.0) for number in range(2)),
        *(phase(REBALANCING, number, speed, moving) for number in range(2)),
    ]


@pytest.mark.parametrize(
    ("speed", "moving", "met"),
    [
        (150.0, 0.11, ["yes", "yes"]),
        # What halves the throughput, or holds clients up, is seen.
        (50.0, 0.11, ["no", "yes"]),
        (150.0, 0.13, ["yes", "no"]),
    ],
)
def test_throughput_and_longest_gaps_are_targets(
    speed: float, moving: float, met: list[str]
) -> None:
    *rows, gain, ratio = drift_rows("drift", phases(speed, moving))
    assert [(row["run"], row["phase"]) for row in rows] == [
        (STAYS, 0),
        (STAYS, 1),
        (REBALANCING, 0),
        (REBALANCING, 1),
    ]
    assert rows[0]["p99 moving ms"] == rows[0]["ratio"] == ""
    assert rows[2]["p50 steady ms"] == rows[2]["p99 before ms"] == pytest.approx(100.0)
    assert rows[2]["p99 moving ms"] == pytest.approx(1e3 * moving)
    assert gain["measured"] == speed / 100.0
    assert ratio["measured"] == pytest.approx(moving / 0.1)
    assert (ratio["target"], ratio["window"]) == ("<= 1.2", "200 gaps moving, 200 before")
    assert [gain["met"], ratio["met"]] == met


def test_a_run_in_which_nothing_moves_has_no_figures() -> None:
    found = [replace(each, gaps=phase(STAYS, 0, 1.0).gaps) for each in phases(150.0, 0.1)]
    with pytest.raises(ConfigError, match=r"drift: nothing to compare \(0 gaps moving, 200 before"):
        drift_rows("drift", found)


def test_phases_take_turns_with_ranks_and_never_take_a_token_twice() -> None:
    first_V = np.array([0.9, 0.2, 0.7, 0.4, 0.8, 0.1])
    chosen = heaviest(np.stack([first_V, 1 - first_V], axis=1), num_phases=3, num_tokens=2)
    assert chosen == [[0, 4], [5, 1], [2, 3]]
