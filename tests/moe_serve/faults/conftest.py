"""Starts servers that are made to fail, and leaves none behind."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from fault_runs import Run, serve_command
from live_server import mpirun, server_config
from network_hosts import Hosts, open_hosts
from world_runs import Worlds

StartCommand = Callable[[Sequence[str]], Run]


@pytest.fixture(scope="session")
def small(checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint with room for long answers; read it, never write."""
    return checkpoint("qwen3_moe", max_position_embeddings=4096)


@pytest.fixture(scope="session")
def two_ranks(small: Path) -> dict[str, Any]:
    """A config of two ranks that can serve."""
    return server_config(small, 2, cache={"page_size": 16, "num_pages": 1024})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def start_command(folder: Path) -> Iterator[StartCommand]:
    runs: list[Run] = []

    def start_run(command: Sequence[str]) -> Run:
        runs.append(Run(command, folder))
        return runs[-1]

    yield start_run
    for run in runs:
        run.kill()


@pytest.fixture(scope="module")
def write_config(folder: Path) -> Callable[[Mapping[str, Any]], Path]:
    def write(config: Mapping[str, Any]) -> Path:
        file = folder / f"config-{len(list(folder.iterdir()))}.yaml"
        file.write_text(yaml.safe_dump(dict(config)))
        return file

    return write


@pytest.fixture(scope="module")
def start(
    start_command: StartCommand, write_config: Callable[[Mapping[str, Any]], Path]
) -> Callable[..., Run]:
    """start(config, num_ranks): what `mpirun -n num_ranks moe_serve` does; 0 is without mpirun."""

    def start_run(config: Mapping[str, Any], num_ranks: int = 2) -> Run:
        command = serve_command(write_config(config))
        return start_command(mpirun(num_ranks, *command) if num_ranks else command)

    return start_run


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts; skipped where there can be none."""
    yield from open_hosts()


@pytest.fixture
def worlds(
    small: Path,
    folder: Path,
    start_command: Callable[[Sequence[str]], Run],
    write_config: Callable[[Mapping[str, Any]], Path],
) -> Iterator[Worlds]:
    worlds = Worlds(small, folder, start_command, write_config)
    yield worlds
    worlds.end()
