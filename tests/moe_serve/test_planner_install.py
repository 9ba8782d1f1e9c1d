"""The planner's install has no torch, and none of the other packages that serving needs."""

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = {
    "demo.yaml": "demo",
    "mixed_six.yaml": "demo",
    "deepseek_v3.yaml": "builtin:deepseek_v3",
    "mixtral.yaml": "builtin:mixtral_8x7b",
    "qwen3_moe.yaml": "builtin:qwen3_30b_a3b",
}
# Imports as they fail where a package is not installed, then the command.
BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[1].split(",")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from moe_serve.cli import run
sys.exit(run(sys.argv[2:]))
"""
ABSENT = (
    *("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "zmq", "mpi4py"),
    *("psutil", "pydantic", "starlette", "uvicorn", "prometheus_client", "jinja2", "httpx"),
)


def run_without(absent: tuple[str, ...], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", BLOCKED, ",".join(absent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_every_shipped_config_is_tried() -> None:
    # The encoder of slices.yaml needs a checkpoint: see test_check_slices.
    assert {path.name for path in CONFIGS.glob("*.yaml")} == {*MODELS, "slices.yaml"}


@pytest.mark.parametrize("name", MODELS)
def test_check_needs_the_planner_alone(name: str) -> None:
    options = ["--config", str(CONFIGS / name), "--set", f"model.path={MODELS[name]}"]
    if name == "demo.yaml":
        options += ["--set", "pools.0.memory=512MiB"]
    done = run_without(ABSENT, "--check", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "every rank has room" in done.stdout


def test_what_is_blocked_is_what_the_planner_does_not_install() -> None:
    always = [line for line in requires("moe-serve") or [] if "extra ==" not in line]
    assert not any(line.startswith(ABSENT) for line in always)
    done = run_without(("rich",), "--check", "--config", str(CONFIGS / "demo.yaml"))
    assert done.returncode == 1
    assert "No module named 'rich'" in done.stderr
