"""Groups of one mpirun's ranks, while the membership changes under those who open them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

WORKER = str(Path(__file__).parent / "groups_worker.py")


@pytest.mark.slow
def test_a_rank_is_called_away_while_another_waits_for_it_in_mpi(
    mpirun: "Callable[..., subprocess.CompletedProcess[str]]",
) -> None:
    done = mpirun(2, [WORKER], 40.0)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n"))[-2:] == ["sound 0", "sound 1"]
