"""A server that moves experts to where the load is, by itself, while clients talk to it."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkpoints import make_checkpoint
from live_server import LiveServer, live_server, server_config
from moe_placement.load.trace_file import load

from moe_serve.config.load import load_config
from moe_serve.config.resolve import resolve
from moe_serve.control.planning.deployment import plan_deployment

pytestmark = pytest.mark.slow

SECONDS = 40.0
QUESTION = [20, 33, 47, 80, 21]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("deepseek_v3", tmp_path_factory.mktemp("model") / "checkpoint")


@pytest.fixture(scope="module")
def server(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LiveServer, Path]]:
    folder = tmp_path_factory.mktemp("rebalancing")
    config = server_config(checkpoint, 2)
    config["cache"]["prefix"] = False
    config["placement"] = {
        "rebalance_every": "1s",
        "move_bytes_per_step": "32KiB",
        "record": str(folder / "load.npz"),
    }
    with live_server(folder, 2, config) as running:
        yield running, folder


def complete(url: str, prompt: list[int], num_tokens: int = 16) -> str:
    body = {
        "prompt": prompt,
        "max_tokens": num_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def plan_of(url: str) -> dict[str, Any]:
    values: dict[str, Any] = httpx.get(f"{url}/v1/plan", timeout=60).json()
    return values


def test_experts_follow_the_load_and_answers_stay(server: tuple[LiveServer, Path]) -> None:
    running, folder = server
    first, right = plan_of(running.url), complete(running.url, QUESTION)
    assert first["epoch"] == 0 and first["rebalancing"]["moving"] is None
    deadline = time.monotonic() + SECONDS
    with ThreadPoolExecutor(4) as clients:
        while plan_of(running.url)["epoch"] < 3 and time.monotonic() < deadline:
            skewed = [[token] * 60 for token in (30, 31, 30, 31)]
            list(clients.map(lambda prompt: complete(running.url, prompt), skewed))
            assert complete(running.url, QUESTION) == right
    now = plan_of(running.url)
    assert now["epoch"] >= 3 and now["rebalancing"]["moved_bytes"] > 0, now["rebalancing"]
    assert now["layers"] != first["layers"]
    assert now["rebalancing"]["decisions"] and now["rebalancing"]["num_given_up"] == 0
    assert sum(now["load"]["1"]) == pytest.approx(1.0)
    assert "moe_serve_plan_epoch" in httpx.get(f"{running.url}/metrics").text
    running.drain()
    assert running.wait_for_end(30) == 0
    _planned_from_the_record(folder)


def _planned_from_the_record(folder: Path) -> None:
    """The record is what `placement.load` wants."""
    trace = load(folder / "load.npz")
    assert trace.shares.max() > 1.5 / trace.num_experts
    (file,) = folder.glob("*.yaml")
    config = load_config(file)
    placement = replace(config.placement, load=str(folder / "load.npz"), record="")
    model_json = json.loads((Path(config.models[0].path) / "config.json").read_text())
    resolved = resolve(replace(config, placement=placement), model_json, 1)
    planned = plan_deployment(resolved, model_json, [1 << 32] * 2)
    assert "so that all ranks get as many rows" in planned.reasons[0]
