"""The launcher with real mpirun: Ctrl-C drains, and nothing outlives it."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname

import psutil
import pytest

from moe_serve.config.tree import Config, ModelConfig, PoolConfig, ServerConfig
from moe_serve.control.meeting.mpirun import mpirun_command, mpirun_environment
from moe_serve.errors import BringUpError
from moe_serve.launch import curl_line

RANK = Path(__file__).with_name("launched_rank.py")
DRIVER = """
import sys
from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.launch import launch
pools = (PoolConfig(name="host", device="cpu", ranks=2),)
sys.exit(launch(sys.argv[1:], Config(models=(ModelConfig(path="demo"),), pools=pools)))
"""
Launcher = subprocess.Popen[str]


@pytest.fixture
def start() -> Iterator[Callable[..., Launcher]]:
    started: list[Launcher] = []

    def start_launcher(*words: str) -> Launcher:
        ranks = [sys.executable, str(RANK), *words]
        command = [sys.executable, "-c", DRIVER, *mpirun_command(2, ranks)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start_launcher
    for launcher in started:
        launcher.kill()
        launcher.communicate()


def read_ranks(launcher: Launcher) -> tuple[list[psutil.Process], str]:
    """The ranks' processes, and the curl line, once both have been printed."""
    assert launcher.stdout is not None
    ranks, curl = [], ""
    while len(ranks) < 2 or not curl:
        line = launcher.stdout.readline()
        assert line, launcher.stderr and launcher.stderr.read()
        if line.startswith("pid "):
            ranks.append(psutil.Process(int(line.split()[1])))
        if line.startswith("try: "):
            curl = line.removeprefix("try: ")
    return ranks, curl


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Ended within the time; one that nobody has reaped has ended too."""
    deadline = time.monotonic() + seconds
    while any(map(lives, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_drains_and_exits_0(
    start: Callable[..., Launcher], number: signal.Signals
) -> None:
    launcher = start()
    ranks, _ = read_ranks(launcher)
    launcher.send_signal(number)
    output, errors = launcher.communicate(timeout=20)
    assert launcher.returncode == 0, errors
    assert sorted(output.split("\n")) == ["", "rank 0 drained", "rank 1 drained"]
    assert "draining; once more to end at once" in errors
    assert gone(ranks, 1)


def test_a_second_signal_ends_ranks_that_do_not_drain(start: Callable[..., Launcher]) -> None:
    launcher = start("deaf")
    ranks, _ = read_ranks(launcher)
    launcher.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=20)
    assert launcher.returncode == 1
    assert gone(ranks, 1)


def test_no_rank_outlives_a_killed_launcher(start: Callable[..., Launcher]) -> None:
    launcher = start("deaf")
    ranks, _ = read_ranks(launcher)
    mpiruns = [rank.parent() for rank in ranks]
    launcher.kill()
    assert gone([*ranks, *filter(None, mpiruns)], 10)


def test_the_exit_code_is_mpiruns(start: Callable[..., Launcher]) -> None:
    launcher = start("fail")
    launcher.communicate(timeout=20)
    assert launcher.returncode == 3


def test_after_ready_a_curl_line_that_a_shell_understands(start: Callable[..., Launcher]) -> None:
    _, line = read_ranks(start())
    words = shlex.split(line)
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:8123/v1/chat/completions"]
    body = json.loads(words[words.index("-d") + 1])
    assert (body["model"], body["stream"]) == ("demo", True)


def test_the_curl_line_shows_where_the_key_goes() -> None:
    config = Config(
        models=(ModelConfig(path="/models/x", name="It's"),),
        pools=(PoolConfig(name="host", device="cpu"),),
        server=ServerConfig(api_keys="keys.txt"),
    )
    words = shlex.split(curl_line("http://h:1", config))
    assert "Authorization: Bearer $API_KEY" in words
    assert json.loads(words[-1])["model"] == "It's"


def test_the_real_command_says_what_the_pools_need(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {path: demo}\npools: [{name: host, device: cpu, ranks: 4}]\n")
    words = ["-m", "moe_serve.launch", "-n", "2", "--set", "pools.0.ranks=3", "--config"]
    found = subprocess.run(
        [sys.executable, *words, str(config)], capture_output=True, text=True, timeout=30
    )
    assert found.returncode == 2
    assert "pools need 3 ranks (host: 3), mpirun started 2; run mpirun -n 3" in found.stderr


def test_the_launcher_refuses_a_bad_config_itself(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "moe_serve.launch", "--config", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("moe_serve: error: ")
    assert found.stderr.count("\n") == 1


def test_a_python_without_mpirun_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BringUpError, match=r"no mpirun beside .*pip install 'moe-serve\[serve\]'"):
        mpirun_command(2, ["true"])


def test_what_a_killed_mpirun_of_the_same_process_id_left_is_in_no_ones_way(
    tmp_path: Path,
) -> None:
    names = {f"pmix.{name}.tool" for name in (gethostname(), gethostname().split(".")[0])}
    leave = 'cd "$TMPDIR" && mkdir ompi.$$ && cd ompi.$$ && touch ' + " ".join(names)
    command = ["sh", "-c", f'{leave} && exec "$@"', "sh", *mpirun_command(1, ["true"])]
    environment = mpirun_environment() | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
