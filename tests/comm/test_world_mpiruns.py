"""Two real mpiruns become one world: exchanges over TCP between them, over MPI inside them."""

import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

MpiRun = Callable[..., "subprocess.CompletedProcess[str]"]
WORKER = str(Path(__file__).parent / "world_worker.py")
CHECKS = (
    "check_gather",
    "check_header",
    "check_collective_equals_local",
    "check_dropped_row_is_seen",
    "check_two_layers_under_way",
    "check_bytes_sent",
)


@pytest.mark.slow
def test_two_mpiruns_form_one_world(mpirun: MpiRun) -> None:
    """The first of them starts two programs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["-W", "error", WORKER, address]
    one = [*command, "first", "0"]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(mpirun, 1, [*one, ":", "-n", "1", sys.executable, *one], 60.0)
        second = pool.submit(mpirun, 1, [*command, "second", "2"], 60.0).result()
    done = first.result()
    assert second.returncode == done.returncode == 0, second.stderr + done.stderr
    said = done.stdout.splitlines()
    assert {f"passed {check} TcpExchange" for check in CHECKS} <= set(said)
    assert said[-3:] == ["passed check_groups", "closed", "closed"]
    assert second.stdout.splitlines() == ["closed"]
