"""Commands where torch has a backend installed that cannot load, as torch-npu without CANN."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process that finds such a backend."""
    found = tmp_path / "broken_npu-1.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-npu\nVersion: 1.0\n")
    (found / "entry_points.txt").write_text("[torch.backends]\nbroken_npu = broken_npu:load\n")
    (tmp_path / "broken_npu.py").write_text("raise ImportError('no CANN')\n")
    kept = {name: value for name, value in os.environ.items() if "AUTOLOAD" not in name}
    return kept | {"PYTHONPATH": str(tmp_path)}


def run(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.slow
def test_torch_alone_does_not_load(environment: dict[str, str]) -> None:
    done = run(environment, "-c", "import torch")
    assert done.returncode and "Failed to load the backend extension: broken_npu" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("moe_serve.bench.cli", "slices", "--tables", "nothing"),
        pytest.param(
            ("moe_placement.cli.main", "calibrate", "--device=nothing"), marks=pytest.mark.slow
        ),
        pytest.param(("moe_serve.cli", "--config", "nothing.yaml"), marks=pytest.mark.slow),
    ],
)
def test_commands_come_as_far_as_their_arguments(
    words: tuple[str, ...], environment: dict[str, str]
) -> None:
    done = run(environment, "-m", *words)
    assert done.returncode == 2 and "broken_npu" not in done.stderr
    assert "nothing" in done.stderr
