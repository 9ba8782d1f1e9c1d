"""The bridge on six real MPI ranks; see bridge_worker.py."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

MpiRun = Callable[..., "subprocess.CompletedProcess[str]"]
WORKER = Path(__file__).parent / "bridge_worker.py"


@pytest.mark.slow
def test_six_ranks_agree_over_the_bridge(mpirun: MpiRun) -> None:
    done = mpirun(6, ["-W", "error", str(WORKER)], timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    checks = re.findall(r"^def (check_\w+)", WORKER.read_text(), re.MULTILINE)
    assert done.stdout.splitlines() == [f"passed {check}" for check in checks]
    assert done.stderr == ""
