"""What mpirun tells a process, and whether the pools ask for it."""

import os
import subprocess
import sys

import pytest

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.control.world import LaunchedWorld, check_world_size, launched_world
from moe_serve.errors import BringUpError, ConfigError

ORPHAN = """
import os, subprocess, sys, time
child = "import time; from moe_serve.control.world import die_with_parent; die_with_parent();"
child += "print('armed', flush=True); time.sleep(60)"
started = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
started.stdout.readline()
print(started.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def launcher_says(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("OMPI_COMM_", "PMI_", "MPI_LOCAL")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_alone_it_is_the_only_rank(launcher_says: pytest.MonkeyPatch) -> None:
    assert launched_world() == LaunchedWorld(0, 1, 0, 1, is_launched=False)


def test_a_rank_of_open_mpi(launcher_says: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 5, "SIZE": 8, "LOCAL_RANK": 1, "LOCAL_SIZE": 4}.items():
        launcher_says.setenv(f"OMPI_COMM_WORLD_{name}", str(value))
    assert launched_world() == LaunchedWorld(5, 8, 1, 4, is_launched=True)


def test_variables_that_are_no_numbers_are_named(launcher_says: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"):
        launcher_says.setenv(f"OMPI_COMM_WORLD_{name}", "many")
    with pytest.raises(BringUpError, match=r"'many'.*unset OMPI_COMM_WORLD_SIZE"):
        launched_world()


def test_the_pools_must_add_up_to_the_ranks() -> None:
    pools = (
        PoolConfig(name="gpu", device="cpu", ranks=2),
        PoolConfig(name="host", device="cpu", ranks=2),
    )
    config = Config(models=(ModelConfig(path="demo"),), pools=pools)
    check_world_size(config, LaunchedWorld(0, 4, 0, 4, is_launched=True))
    assert [config.pool_of(rank).name for rank in range(4)] == ["gpu", "gpu", "host", "host"]
    with pytest.raises(ConfigError) as caught:
        check_world_size(config, LaunchedWorld(0, 3, 0, 3, is_launched=True))
    assert str(caught.value) == (
        "pools need 4 ranks (gpu: 2, host: 2), mpirun started 3; "
        "run mpirun -n 4 or change pools[..].ranks"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="parent death signals are Linux's")
def test_a_process_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.communicate()
    assert ended(child)


def ended(process_id: int) -> bool:
    import psutil

    try:
        process = psutil.Process(process_id)
        psutil.wait_procs([process], timeout=0.5)
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
