"""A process of the server is killed while it answers: clients hear of it, nothing is left."""

import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from fault_runs import Run, open_streams

LONG = 3000
VICTIMS: dict[str, Callable[[Run], psutil.Process]] = {
    "rank 0": lambda run: run.rank(0),
    "rank 1": lambda run: run.rank(1),
    "mpirun": lambda run: psutil.Process(run.process.pid),
}


@pytest.mark.slow
@pytest.mark.parametrize("victim", VICTIMS)
def test_streams_get_an_error_event_and_the_job_ends(
    start: Callable[..., Run], two_ranks: dict[str, Any], victim: str
) -> None:
    run = start(two_ranks)
    streams = open_streams(run.wait_until_ready(), 4, LONG)
    killed = time.monotonic()
    VICTIMS[victim](run).kill()
    for stream in streams:
        stream.wait_for_end(5.0)
        assert stream.broken is None
        assert stream.error is not None, "the stream ended as if it were whole"
        assert stream.error["type"] == "server_error"
        assert "died" in stream.error["message"]
    assert run.wait_for_end(5.0) != 0
    assert time.monotonic() - killed < 5.0


@pytest.mark.slow
def test_a_killed_front_end_ends_the_job(
    start: Callable[..., Run], two_ranks: dict[str, Any]
) -> None:
    run = start(two_ranks)
    streams = open_streams(run.wait_until_ready(), 4, LONG)
    killed = time.monotonic()
    run.front_end().kill()
    for stream in streams:
        stream.wait_for_end(5.0)
        assert stream.broken is not None
    assert run.wait_for_end(5.0) == 1
    assert time.monotonic() - killed < 5.0
    assert run.error_lines == ["the front end was ended by signal 9; its requests are lost"]
