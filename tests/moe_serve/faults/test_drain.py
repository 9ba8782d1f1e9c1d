"""Signals that drain, and the one that does not wait."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_runs import Run, drain, open_streams


@pytest.mark.slow
def test_term_to_the_front_end_drains(start: Callable[..., Run], two_ranks: dict[str, Any]) -> None:
    run = start(two_ranks)
    url = run.wait_until_ready()
    drain(run, url, run.front_end().terminate)


@pytest.mark.slow
def test_term_to_a_lone_server_drains(start: Callable[..., Run], two_ranks: dict[str, Any]) -> None:
    run = start(two_ranks | {"pools": [two_ranks["pools"][0] | {"ranks": 1}]}, num_ranks=0)
    url = run.wait_until_ready()
    drain(run, url, run.process.terminate)


@pytest.mark.slow
def test_term_to_mpirun_ends_at_once(start: Callable[..., Run], two_ranks: dict[str, Any]) -> None:
    run = start(two_ranks)
    streams = open_streams(run.wait_until_ready(), 2, 3000)
    asked = time.monotonic()
    run.process.terminate()
    assert run.wait_for_end(5.0) != 0
    assert time.monotonic() - asked < 5.0
    for stream in streams:
        stream.wait_for_end(5.0)
        assert stream.error is not None


@pytest.mark.slow
def test_usr1_while_loading_is_kept(start: Callable[..., Run], two_ranks: dict[str, Any]) -> None:
    run = start(two_ranks)
    while not all(loads_torch(run, number) for number in range(2)):
        assert run.seconds_since_start() < 60.0
        time.sleep(0.01)
    for _ in range(3):
        run.process.send_signal(signal.SIGUSR1)
        assert "ready" not in run.output
        time.sleep(0.05)
    assert run.wait_for_end(60.0) == 0, run.errors
    assert run.error_lines == []


def loads_torch(run: Run, number: int) -> bool:
    try:
        return any("libtorch" in place.path for place in run.rank(number).memory_maps())
    except (ValueError, psutil.Error):
        return False


@pytest.mark.slow
def test_an_interrupted_launcher_drains(
    start_command: Callable[[list[str]], Run],
    write_config: Callable[[Mapping[str, Any]], Path],
    two_ranks: dict[str, Any],
) -> None:
    config = str(write_config(two_ranks))
    run = start_command([sys.executable, "-m", "moe_serve.launch", "--config", config])
    url = run.wait_until_ready()
    drain(run, url, lambda: run.process.send_signal(signal.SIGINT))


@pytest.mark.slow
def test_a_launcher_that_is_interrupted_while_loading_ends_at_once(
    start_command: Callable[[list[str]], Run],
    write_config: Callable[[Mapping[str, Any]], Path],
    two_ranks: dict[str, Any],
) -> None:
    config = str(write_config(two_ranks))
    run = start_command([sys.executable, "-m", "moe_serve.launch", "--config", config])
    while not loads_torch(run, 0):
        assert run.seconds_since_start() < 60.0
        time.sleep(0.01)
    run.process.send_signal(signal.SIGINT)
    assert run.wait_for_end(5.0) != 0
    assert "ready" not in run.output
