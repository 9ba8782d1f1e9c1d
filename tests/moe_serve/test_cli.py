"""The `moe_serve` command as users run it: real processes, real mpirun."""

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]
CONFIGS = Path(__file__).parents[2] / "configs"
GOOD = "model: {path: 'builtin:mixtral_8x7b'}\npools: [{name: host, device: cpu, memory: 256GiB}]\n"
NEEDS_4 = """
model: {path: demo}
pools: [{name: gpu, device: cpu, ranks: 2}, {name: host, device: cpu, ranks: 2}]
"""


@pytest.fixture
def moe_serve() -> Command:
    def run(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "moe_serve.cli", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


def error_line(found: "subprocess.CompletedProcess[str]") -> str:
    """The one line of a command that could not go on."""
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("moe_serve: error: ")
    assert found.stderr.count("\n") == 1, found.stderr
    return found.stderr.removeprefix("moe_serve: error: ")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pools.0.wieghts=auto", 'pools[0].wieghts: unknown key; did you mean "weights"?'),
        ("pools.0.ranks=many", "pools[0].ranks: expected a whole number, got 'many' (text)"),
        ("pools.0.weights=int4", "pools[0].weights: this version does not compute with int4"),
        ("pools.0.ranks=4", "pools need 4 ranks (host: 4), 1 was started; run mpirun -n 4 or"),
        ("server.port=80", "builtin:mixtral_8x7b has no weights, it can only be checked"),
    ],
)
def test_a_config_error_is_one_line(
    moe_serve: Command, config: Path, override: str, said: str
) -> None:
    assert said in error_line(moe_serve("--config", config, "--set", override))


def test_a_file_that_is_no_config(moe_serve: Command, tmp_path: Path) -> None:
    assert "No such file" in error_line(moe_serve("--config", tmp_path / "none.yaml"))
    assert "Is a directory" in error_line(moe_serve("--config", tmp_path))
    text = tmp_path / "text.yaml"
    text.write_text("a: b: c\n")
    assert "line 1: not valid YAML" in error_line(moe_serve("--config", text))


def test_a_wrong_command_line_is_one_line(moe_serve: Command, config: Path) -> None:
    assert "required: --config; see moe_serve --help" in error_line(moe_serve())
    assert "unrecognized arguments: --nonsense" in error_line(
        moe_serve("--config", config, "--nonsense")
    )
    assert "--json" in error_line(moe_serve("--config", config, "--json"))


def test_version(moe_serve: Command) -> None:
    found = moe_serve("--version")
    assert (found.returncode, found.stdout) == (0, f"moe_serve {version('moe-serve')}\n")


def test_too_few_ranks_is_one_line_from_the_lowest_within_ten_seconds(
    mpirun: Command, tmp_path: Path
) -> None:
    config = tmp_path / f"needs_4_{time.time_ns()}.yaml"
    config.write_text(NEEDS_4)
    started = time.monotonic()
    found = mpirun(3, ["-m", "moe_serve.cli", "--config", str(config)], 30.0)
    assert time.monotonic() - started < 10.0
    assert found.returncode == 2
    lines = [line for line in found.stderr.splitlines() if line.startswith("moe_serve: error: ")]
    assert lines == [
        "moe_serve: error: pools need 4 ranks (gpu: 2, host: 2), mpirun started 3; "
        "run mpirun -n 4 or change pools[..].ranks"
    ]
    assert "Process name: [prterun" in found.stderr
    assert ",0]" in found.stderr
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(config) in (process.info["cmdline"] or [])
    ]


def test_an_error_of_a_higher_rank_alone_is_told_once(mpirun: Command, tmp_path: Path) -> None:
    """As where one host lacks the file."""
    config, missing = tmp_path / "two.yaml", tmp_path / "none.yaml"
    config.write_text("model: {path: demo}\npools: [{name: host, device: cpu, ranks: 2}]\n")
    program = (
        "import os, sys\n"
        "from moe_serve import cli\n"
        "rank = int(os.environ['OMPI_COMM_WORLD_RANK'])\n"
        f"path = {[str(config), str(missing)]!r}[rank]\n"
        "sys.argv[1:] = ['--config', path, '--set', 'server.port=0']\n"
        "cli.main()\n"
    )
    started = time.monotonic()
    found = mpirun(2, ["-c", program], 25.0)
    assert time.monotonic() - started < 10.0
    assert found.returncode == 2
    assert found.stderr.count("moe_serve: error: ") == 1
    assert f"moe_serve: error: rank 1: {missing}: cannot read" in found.stderr


def test_check_loads_no_torch(config: Path) -> None:
    words = ["-X", "importtime", "-m", "moe_serve.cli", "--check", "--config"]
    for path in (config, CONFIGS / "deepseek_v3.yaml"):
        found = subprocess.run(
            [sys.executable, *words, str(path)], capture_output=True, text=True, timeout=60
        )
        assert found.returncode == 0, found.stderr
        modules = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
        assert "moe_serve.check" in modules
        assert not {"torch", "mpi4py", "transformers"} & modules


def test_the_world_is_checked_before_torch_is_loaded(config: Path) -> None:
    words = ["-X", "importtime", "-m", "moe_serve.cli", "--config", str(config)]
    found = subprocess.run(
        [sys.executable, *words, "--set", "pools.0.ranks=2"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "pools need 2 ranks" in found.stderr
    assert "| torch" not in found.stderr.replace("  ", "")
    assert "moe_serve.control.meeting.world" in found.stderr


def test_under_mpirun_rank_0_alone_prints_the_check(mpirun: Command, config: Path) -> None:
    words = ["-m", "moe_serve.cli", "--check", "--config", str(config), "--set", "pools.0.ranks=2"]
    found = mpirun(2, words, 30.0)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("fits  every rank has room") == 1
    assert found.stdout.count("memory of each rank") == 1
