"""All cases of tests/attention_cases.py in one launch of four ranks."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attention_cases import CASES, CHECKPOINTS, NUM_TOKENS, PROMPTS

WORKER = Path(__file__).parent / "attention_rank.py"
TESTS = Path(__file__).parents[2]

MpiRun = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def paths(checkpoint: Callable[..., Path]) -> dict[str, Path]:
    """The checkpoints by name."""
    return {name: checkpoint(family, **changes) for name, (family, changes) in CHECKPOINTS.items()}


@pytest.fixture(scope="session")
def answers(
    mpirun: MpiRun, paths: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What attention_rank.py answers, by the case's name."""
    cases = [
        {
            "path": str(paths[name]),
            "num_ranks": num_ranks,
            "tensor_parallel": degree,
            "prompts": PROMPTS,
            "num_tokens": NUM_TOKENS,
            **more,
        }
        for name, num_ranks, degree, more in CASES.values()
    ]
    file = tmp_path_factory.mktemp("attention") / "cases.json"
    file.write_text(json.dumps(cases))
    modules = ("-x", f"PYTHONPATH={TESTS.parent}:{TESTS}")
    done = mpirun(4, ["-W", "error", str(WORKER), str(file)], 150, modules)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))
