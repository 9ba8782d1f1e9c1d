"""Models with cores of their own; servers held to a part of a host's time or memory."""

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from live_server import LiveServer, live_server
from slice_clients import (
    ADMIN_HEADERS,
    PROMPTS,
    Answers,
    busy,
    generate,
    slices_config,
    text_of,
)

pytestmark = pytest.mark.slow


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_model_on_cores_of_its_own_answers_beside_others(
    model_paths: Mapping[str, Path], answers: Answers, tmp_path: Path
) -> None:
    slices = {
        "big": {"slice": {"compute_percent": 50, "memory_mb": 160}},
        "small": {"slice": {"compute_percent": 50, "memory_mb": 160, "isolate": "sm"}},
    }
    config = slices_config(model_paths, 1, slices, tmp_path)
    config["pools"][0]["threads"] = 0
    wanted = [(model, place) for place in range(len(PROMPTS)) for model in slices] * 2
    with live_server(tmp_path, 1, config) as server, ThreadPoolExecutor(len(wanted)) as pool:
        url = server.url
        found = pool.map(lambda one: text_of(generate(url, one[0], PROMPTS[one[1]])), wanted)
        assert list(found) == [answers[model][place] for model, place in wanted]
        gone = httpx.delete(f"{url}/v1/slices/small", headers=ADMIN_HEADERS, timeout=30)
        assert gone.status_code == 200
        assert text_of(generate(url, "big", PROMPTS[0])) == answers["big"][0]
        # A lone process drains by SIGTERM.
        server.process.terminate()
        assert server.wait_for_end(30) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups are root's to make")
def test_a_server_keeps_to_a_part_of_the_hosts_time(
    model_paths: Mapping[str, Path], tmp_path: Path
) -> None:
    slices = {"small": {}, "little": {}}
    config = slices_config(model_paths, 1, slices, tmp_path)
    config["pools"][0] |= {"compute_percent": 20, "threads": 1}
    granted = 0.2 * len(os.sched_getaffinity(0))
    with live_server(tmp_path, 1, config) as server, busy(server.url, ["small", "little"], 3):
        before, begun = _cpu_seconds(server), time.monotonic()
        time.sleep(3.0)
        used = (_cpu_seconds(server) - before) / (time.monotonic() - begun)
    assert used < granted * 1.1


def test_a_server_that_is_held_to_its_memory_serves_within_it(
    model_paths: Mapping[str, Path], answers: Answers, tmp_path: Path
) -> None:
    slices = {name: {"slice": {"memory_mb": 160}} for name in ("small", "little")}
    config = slices_config(model_paths, 1, slices, tmp_path)
    config["pools"][0] |= {"memory": "512MiB", "limit_memory": True}
    with live_server(tmp_path, 1, config) as server:
        assert text_of(generate(server.url, "small", PROMPTS[2])) == answers["small"][2]
        assert "limit_memory" in server.output and "an error for who asks for more" in server.output


def _cpu_seconds(server: LiveServer) -> float:
    """Of all processes that serve."""
    return sum(sum(each.cpu_times()[:2]) for each in server.family())
