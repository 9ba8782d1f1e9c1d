"""The plan in force when ranks are lost and come back: told, right, and kept fit for the load."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from moe_placement.load.trace_file import load
from world_runs import (
    NUM_EXPERTS,
    NUM_TOKENS,
    PROMPTS,
    Worlds,
    begin,
    end_well,
    ended,
    kill,
    range_of,
    tokens,
    wait_for_metric,
)

pytestmark = pytest.mark.slow

SECONDS = 60.0
FAR = 2
NUM_EXPERTS_PER_TOKEN = 4


def plan_of(url: str) -> dict[str, Any]:
    values: dict[str, Any] = httpx.get(f"{url}/v1/plan", timeout=60).json()
    return values


def slots_of(plan: dict[str, Any], rank: int) -> list[list[int]]:
    return [layer["slots"][rank] for layer in plan["layers"].values()]


def check_plan(url: str, lost: list[int]) -> dict[str, Any]:
    """What it says agrees, soon, with what the ranks say of themselves, and is whole."""
    there = [rank for rank in range(3) if rank not in lost]
    deadline = time.monotonic() + 10.0
    while not told_alike(plan := plan_of(url), there):
        assert time.monotonic() < deadline, (plan["epoch"], plan["ranks"])
        time.sleep(0.05)
    assert plan["membership"]["lost"] == lost
    assert plan["membership"]["refusal"] == ""
    epochs = plan["ranks"]["plan_epoch"]
    assert [epochs[rank] for rank in lost] == [None] * len(lost)
    for rank in lost:
        assert not any(slots_of(plan, rank))
    for layer in plan["layers"].values():
        assert {each for rank in there for each in layer["slots"][rank]} == set(range(NUM_EXPERTS))
    return plan


def told_alike(plan: dict[str, Any], ranks: Sequence[int]) -> bool:
    return {plan["ranks"]["plan_epoch"][rank] for rank in ranks} == {plan["epoch"]}


def wait_for_moves(url: str, epoch: int, expected: list[list[str]]) -> None:
    """Skewed load, until experts have moved to it; answers stay what they are."""
    deadline = time.monotonic() + SECONDS
    with ThreadPoolExecutor(4) as clients:
        while plan_of(url)["epoch"] <= epoch:
            assert time.monotonic() < deadline, plan_of(url)["rebalancing"]
            list(clients.map(lambda token: complete(url, token), (30, 31, 30, 31)))
            assert tokens(url) == expected


def wait_for_decision(url: str, said: str) -> None:
    deadline = time.monotonic() + 10.0
    while not any(said in each for each in plan_of(url)["rebalancing"]["decisions"]):
        assert time.monotonic() < deadline, plan_of(url)["rebalancing"]
        time.sleep(0.1)


def complete(url: str, token: int) -> None:
    body = {"prompt": [token] * 200, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text


def test_experts_follow_the_load_after_a_loss_and_after_a_return(worlds: Worlds) -> None:
    url, (front, far) = worlds.start(
        [
            ("front", 2, "both", [range_of(0, 8), range_of(6, 12)]),
            ("far", 1, "experts", [range_of(3, 9)]),
        ],
        placement={"rebalance_every": "1s", "move_bytes_per_step": "256KiB"},
        cache={"page_size": 16, "num_pages": 256, "prefix": False},
    )
    expected = tokens(url)
    kill(far)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    wait_for_decision(url, "plan ranks 2 are lost")
    assert tokens(url) == expected
    wait_for_moves(url, plan_of(url)["epoch"], expected)
    plan = check_plan(url, [FAR])
    assert plan["membership"]["epoch"] == 1
    far = worlds.start_again("far")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, 40.0)
    wait_for_decision(url, "all plan ranks are there")
    assert tokens(url) == expected
    wait_for_moves(url, plan_of(url)["epoch"], expected)
    end_well(front, far)


def test_the_plan_in_force_is_told_without_rebalancing(worlds: Worlds) -> None:
    url, (_, far) = worlds.start(
        [
            ("front", 2, "both", [range_of(0, 8), range_of(6, 12)]),
            ("far", 1, "experts", [range_of(3, 9)]),
        ]
    )
    whole = check_plan(url, [])
    assert all(slots_of(whole, FAR))
    kill(far)
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 1, 20.0)
    check_plan(url, [FAR])
    worlds.start_again("far")
    wait_for_metric(url, "moe_serve_lost_ranks", lambda lost: lost == 0, 40.0)
    again = check_plan(url, [])
    assert [layer["slots"] for layer in again["layers"].values()] == [
        layer["slots"] for layer in whole["layers"].values()
    ]
    assert again["epoch"] == 2


def test_the_rows_of_a_broken_off_step_count_once(worlds: Worlds, tmp_path: Path) -> None:
    record = tmp_path / "load.npz"
    url, (front, far) = worlds.start(
        [("front", 1, "both", [range_of(0, 12)]), ("far", 1, "experts", [range_of(6, 12)])],
        placement={"record": str(record)},
    )
    interrupted = begin(url)
    kill(far)
    ended(interrupted)
    end_well(front)
    # The last token of an answer is nobody's input.
    num_tokens = sum(len(prompt) + NUM_TOKENS - 1 for prompt in PROMPTS)
    rows_L = load(record).counts_TLE.sum(axis=(0, 2))
    assert rows_L.tolist() == [num_tokens * NUM_EXPERTS_PER_TOKEN] * len(rows_L)
