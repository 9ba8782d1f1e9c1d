"""An NPU with torch_npu itself, over libraries that keep its memory on the host: no operator runs.

It proves calls and their order, not what hardware makes of them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from npu_stub import build_stub

WHEEL = "torch-npu==2.13.0"
DEMO = Path(__file__).parents[2] / "configs/demo.yaml"
SESSION = Path(__file__).parents[1] / "npu_session.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.__version__.startswith("2.13."), reason=f"{WHEEL} is made for torch 2.13"
    ),
    pytest.mark.skipif(
        torch.accelerator.current_accelerator() is not None,
        reason="torch is built for another accelerator, which torch_npu refuses",
    ),
    pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("nm")), reason="needs gcc and nm"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with torch_npu."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--retries=1",
    ]
    done = subprocess.run(
        [*command, "--target", folder, WHEEL], capture_output=True, text=True, timeout=240
    )
    if done.returncode:
        pytest.skip(f"{WHEEL} cannot be had: {done.stderr.strip().splitlines()[-1]}")
    return folder


def run(
    wheel: Path, *command: str | Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Python with torch_npu at hand, and the house."""
    path = os.pathsep.join([str(wheel), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment | {"PYTHONPATH": path, "TASK_QUEUE_ENABLE": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def session(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    libraries = tmp_path_factory.mktemp("libraries")
    build_stub(wheel / "torch_npu", libraries)
    alone = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "LD_LIBRARY_PATH": str(libraries)}
    done = run(wheel, SESSION, **alone)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_an_npu_opens_and_keeps_what_is_copied_to_it(session: dict[str, Any]) -> None:
    # Before torch_npu is loaded the driver's devices count, of which there are none here.
    assert session["available"] == [0, 1]
    assert (session["name"], session["device"]) == ("Ascend910B2", "npu:0")
    assert session["num_float_errors"] == 0
    assert session["missing"].startswith("DeviceError: no NPU 1: torch ")
    total, free, held = session["memory_mib"]
    assert total == 1024 and 100 <= held <= 130 and 0 <= total - held - free <= 1
    assert session["held_after"] == 0


def test_nothing_that_would_compute_gives_garbage(session: dict[str, Any]) -> None:
    assert session["refusal"].startswith("RuntimeError: ")
    assert "OnesLike, error code is 500000" in session["refusal"]


def test_an_npu_refuses_what_is_above_the_cap(session: dict[str, Any]) -> None:
    assert session["cap"].startswith("25.00% of Ascend910B2 at most")
    assert session["above_cap"].startswith("OutOfMemoryError: NPU out of memory")
    assert session["below_cap"] == ""
    assert "a cap of 1.0 MiB is below the 232.0 MiB in use already" in session["cap_below"]


def test_limits_arrive_at_the_runtime_and_go_again(session: dict[str, Any]) -> None:
    parts = session["parts"]
    assert [part["limits"] for part in parts] == [[6, 12], [2, 4], [16, 32]]
    assert [part["told"] for part in parts] == [part["limits"] for part in parts]
    assert parts[0]["name"] == "at most 6 cube and 12 vector cores of NPU 0"
    assert len({part["stream"] for part in parts}) == 3
    for part in parts:
        assert part["is_in_order"] == [True, True] and part["is_outer_again"]
        assert part["limits_after"] == [24, 48]


def test_the_devices_collective_has_a_group_of_torch_distributed(session: dict[str, Any]) -> None:
    assert session["group"] == [1, "custom"]
    assert "HcclGetRootInfo" in session["collective"]


def test_a_server_without_cann_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    pool = "pools=[{name: ascend, device: npu}]"
    command = ("-m", "moe_serve.cli", "--config", DEMO, "--set", pool, "--set", "server.port=0")
    done = run(wheel, *command, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 2, done.stderr
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("moe_serve: error: "))
    missing = r"device npu: torch_npu does not load \(libhccl\.so: cannot open .*\); install CANN"
    assert re.search(missing, error)
