"""The exchanges and the collective dispatcher on real MPI ranks; see mpi_worker.py."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from moe_comm.launch import Launch
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.world import open_world
from quick import quick_among

MpiRun = Callable[..., "subprocess.CompletedProcess[str]"]
WORKER = str(Path(__file__).parent / "mpi_worker.py")
CHECKS = (
    "check_gather",
    "check_header",
    "check_collective_equals_local",
    "check_dropped_row_is_seen",
    "check_two_layers_under_way",
    "check_bytes_sent",
    "check_gathered_rows",
    "check_ordered_sum",
    "check_polled_rows",
)


@pytest.mark.parametrize("num_ranks", quick_among([2, 3, 4], [3]))
def test_ranks_agree_over_mpi_and_gloo(mpirun: MpiRun, num_ranks: int) -> None:
    done = mpirun(num_ranks, ["-W", "error", WORKER, "agreeing", "gloo"], timeout=90)
    assert_all_passed(done, "MpiExchange")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="never run: needs two GPUs")
def test_ranks_agree_over_mpi_and_nccl(mpirun: MpiRun) -> None:
    done = mpirun(2, ["-W", "error", WORKER, "agreeing", "nccl"], timeout=90)
    assert_all_passed(done, "MpiExchange")


@pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=pytest.mark.gpu)])
def test_a_torch_group_of_one_rank_gives_what_local_gives(backend: str) -> None:
    command = [sys.executable, "-W", "error", WORKER, "agreeing", backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert_all_passed(done, "LocalExchange")


def assert_all_passed(done: "subprocess.CompletedProcess[str]", bring_up: str) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    transports = (bring_up, "TorchExchange")
    expected = [f"passed {check} {name}" for name in transports for check in CHECKS]
    expected += ["passed check_groups", "closed"]
    assert done.stdout.splitlines() == expected
    assert done.stderr == ""


@pytest.mark.slow
def test_a_silent_peer_is_reported_within_the_deadline(mpirun: MpiRun) -> None:
    done = mpirun(3, ["-W", "error", WORKER, "lost", "gloo"], timeout=50)
    lost = re.findall(r"(\w+) lost after ([\d.]+): (.*)", done.stdout)
    assert sorted(name for name, _, _ in lost) == ["MpiExchange"] * 4 + ["TorchExchange"] * 2
    for name, seconds, message in lost:
        assert 0.5 < float(seconds) < 5 or "told to stop" in message, name
        assert "rows from the 2 other ranks" in message or "TorchExchange" in name
    assert "closed" in done.stdout
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


def test_a_process_alone_needs_no_mpi() -> None:
    world = open_world(Launch())
    exchange = world.open_exchange([0], 1.0, lambda: True)
    assert isinstance(exchange, LocalExchange)
    assert exchange.allgather_bytes(b"me") == [b"me"]
    world.close()
