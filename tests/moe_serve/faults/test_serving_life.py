"""One server's life: it idles, wakes, keeps its port, and drains by a signal to mpirun."""

import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fault_runs import Run, drain

IDLE_SECONDS = 3.0
NUM_MEASUREMENTS = 4


@pytest.fixture(scope="module")
def run(start: Callable[..., Run], two_ranks: dict[str, Any]) -> Run:
    run = start(two_ranks)
    run.wait_until_ready()
    return run


@pytest.fixture(scope="module")
def url(run: Run) -> str:
    return run.wait_until_ready()


def seconds_of_one_token(client: httpx.Client, url: str) -> float:
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 1, "temperature": 0}
    started = time.perf_counter()
    answer = client.post(f"{url}/v1/completions", json=body)
    seconds = time.perf_counter() - started
    assert answer.status_code == 200, answer.text
    return seconds


def test_idle_processes_use_no_processor(run: Run, url: str) -> None:
    with httpx.Client(timeout=30.0) as client:
        seconds_of_one_token(client, url)
    time.sleep(1.0)
    watched = {"rank 0": run.rank(0), "rank 1": run.rank(1), "front end": run.front_end()}
    before = {name: process.cpu_times() for name, process in watched.items()}
    time.sleep(IDLE_SECONDS)
    for name, process in watched.items():
        now = process.cpu_times()
        used = now.user + now.system - before[name].user - before[name].system
        assert used < 0.02 * IDLE_SECONDS, f"{name} used {used:.3f} s in {IDLE_SECONDS} s"


def test_a_request_after_idling_is_answered_as_quickly(url: str) -> None:
    """Least of several: whoever else uses the machine can only add."""
    cold, warm = [], []
    with httpx.Client(timeout=30.0) as client:
        for _ in range(NUM_MEASUREMENTS):
            time.sleep(0.5)
            cold.append(seconds_of_one_token(client, url))
            warm += [seconds_of_one_token(client, url) for _ in range(3)]
    assert min(cold) < min(warm) + 0.010


def test_a_second_server_on_the_port(
    url: str, start: Callable[..., Run], two_ranks: dict[str, Any]
) -> None:
    port = int(url.rsplit(":", 1)[1])
    second = start(two_ranks | {"server": {"port": port}})
    assert second.wait_for_end(30.0) == 2
    assert second.seconds_since_start() < 10.0
    (line,) = second.error_lines
    assert line.startswith(f"rank 0: cannot listen on 127.0.0.1:{port}: Address already in use")
    with httpx.Client(timeout=30.0) as client:
        seconds_of_one_token(client, url)


@pytest.mark.slow
def test_usr1_to_mpirun_drains(run: Run, url: str) -> None:
    drain(run, url, lambda: run.process.send_signal(signal.SIGUSR1))
