"""`moe_serve --pools` as users run it: mpiruns that cannot form a world all say so, and end."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CONFIG = """
model: {path: demo}
pools: [{name: gpu, device: cpu}, {name: npu, device: cpu}]
links: [{between: [gpu, npu], bandwidth: 1GB/s}]
server: {port: 0}
"""
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def start(tmp_path: Path, address: str) -> Iterator[Start]:
    """start(pools, *overrides): a process of its own is an mpirun of one rank."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    started: list[Process] = []

    def run(pools: str, *overrides: str) -> Process:
        values = [f"world.address={address}", "world.wait=20", *overrides]
        words = [word for value in values for word in ("--set", value)]
        command = [sys.executable, "-X", "importtime", "-m", "moe_serve.cli"]
        process = subprocess.Popen(
            [*command, "--config", str(config), "--pools", pools, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def error_of(process: Process) -> str:
    """The one line of a process that could not go on, before it loaded torch."""
    output, errors = process.communicate(timeout=15)
    lines = [line for line in errors.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, output) == (2, ""), errors[-2000:]
    assert len(lines) == 1 and lines[0].startswith("moe_serve: error: "), lines
    modules = {line.rpartition("|")[2].strip() for line in errors.splitlines()}
    assert "moe_comm.transport.rendezvous" in modules
    assert not {"torch", "numpy", "transformers"} & modules
    return lines[0].removeprefix("moe_serve: error: ")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        pytest.param(
            ("gpu",),
            ("gpu",),
            "pool gpu is served twice, by the mpirun of pool gpu on host",
            marks=pytest.mark.slow,
        ),
        (("gpu",), ("npu", "cache.page_size=32"), "plan rank 1 on host .* a config with digest"),
        (("gpu",), ("nqu",), '--pools: there is no pool "nqu"; use gpu, npu'),
        pytest.param(
            ("gpu",),
            ("npu,gpu",),
            r"pools need 2 ranks \(gpu: 1, npu: 1\), 1 was started; run",
            marks=pytest.mark.slow,
        ),
        (("gpu", "server.api_keys=/none"), ("npu",), "server.api_keys: cannot read /none"),
        (("gpo",), ("npu",), '--pools: there is no pool "gpo"; use gpu, npu'),
    ],
)
def test_what_keeps_one_mpirun_from_it_ends_both(
    start: Start, first: tuple[str, ...], second: tuple[str, ...], said: str
) -> None:
    started = time.monotonic()
    errors = [error_of(process) for process in (start(*first), start(*second))]
    assert time.monotonic() - started < 10
    assert all(re.search(said, error) for error in errors), errors


def test_a_pool_for_which_nobody_comes(start: Start) -> None:
    error = error_of(start("gpu", "world.wait=0.5"))
    assert error.startswith("nobody came for pool npu within 0.5 s; start an mpirun with --pools")


def test_another_secret_ends_who_holds_it_alone(start: Start, tmp_path: Path) -> None:
    secrets = []
    for name in ("ours", "theirs"):
        file = tmp_path / name
        file.write_text(name)
        secrets.append(f"world.secret={file}")
    gpu = start("gpu", secrets[0])
    npu = start("npu", secrets[1])
    assert "it holds another secret; give every mpirun the same world.secret" in error_of(npu)
    assert "no pool" in error_of(start("nqu", secrets[0]))
    said = gpu.communicate(timeout=15)[1]
    assert gpu.returncode == 2
    assert "turned away 127.0.0.1:" in said
    assert 'cannot go on: --pools: there is no pool "nqu"' in said
