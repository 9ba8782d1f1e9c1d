"""What the stub must refuse, for a test on it to be able to fail; and what runs on one GPU."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]
OPEN = "import torch; x = torch.ones(4, device='cuda')\n"
Gpus = Callable[..., Mapping[str, str]]


def run(
    environment: Mapping[str, str], *words: str | Path, seconds: float = 60
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("x @ torch.ones(4)", "all tensors to be on the same device"),
        ("x.index_copy_(0, torch.zeros(1, dtype=torch.int64), x[:1] * 2)", "in the same device"),
        ("torch.cat([x, torch.ones(4)])", "all tensors to be on the same device"),
        ("x.numpy()", "can't convert cuda:0 device type tensor to numpy"),
        ("torch.ones(1 << 30, device='cuda')", "CUDA out of memory"),
    ],
)
def test_what_a_gpu_refuses_the_stub_refuses(gpus: Gpus, code: str, refusal: str) -> None:
    done = run(gpus(1), "-c", OPEN + code)
    assert done.returncode == 1 and refusal in done.stderr, done.stderr


def test_the_host_cannot_touch_its_memory(gpus: Gpus) -> None:
    read = "import ctypes; ctypes.string_at(x.data_ptr(), 1)"
    assert run(gpus(1), "-c", OPEN + read).returncode == -signal.SIGSEGV
    done = run(gpus(1), "-c", OPEN + "print((x * 3).cpu().tolist())")
    assert done.stdout == "[3.0, 3.0, 3.0, 3.0]\n", done.stderr


@pytest.mark.parametrize(("family", "num_moe_layers"), [("llama", 0), ("qwen3_moe", 3)])
def test_a_step_is_over_when_its_work_is(
    family: str, num_moe_layers: int, gpus: Gpus, checkpoint: Callable[..., Path]
) -> None:
    environment = gpus(1, operator_seconds=0.001)
    done = run(environment, TESTS / "gpu_session.py", checkpoint(family))
    assert done.returncode == 0, done.stderr
    waiting, hurrying = json.loads(done.stdout)
    assert waiting["pending"] == [0.0] * 6
    # For the experts that each layer's tokens go to, and for the step's end.
    assert waiting["waits"] == [num_moe_layers + 1] * 6
    # What the others would pay for.
    left = [seconds > 0.01 for seconds in hurrying["pending"]]
    assert left == [True] * 3 + [False] * 3


def test_what_is_left_to_gpus_passes(gpus: Gpus) -> None:
    """Two of them; the processors of a real one cannot be divided here."""
    words = ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--timeout=200"]
    done = run(
        gpus(2), *words, "--deselect=tests/devices/test_green_contexts.py", TESTS, seconds=290
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (num_passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(num_passed) > 80 and "skipped" not in done.stdout, done.stdout
