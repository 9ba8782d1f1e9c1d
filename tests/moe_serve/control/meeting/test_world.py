"""What mpirun tells a process, and whether the pools ask for it."""

import os
import subprocess
import sys

import pytest
from moe_comm.launch import Launch

from moe_serve.config.tree import Config, ModelConfig, PoolConfig
from moe_serve.control.meeting.addresses import bind_address, host_address, reachable_addresses
from moe_serve.control.meeting.world import (
    LaunchedWorld,
    check_world_size,
    in_pools,
    launched_world,
)
from moe_serve.errors import BringUpError, ConfigError

ORPHAN = """
import os, subprocess, sys, time
child = "import time; from moe_serve.control.meeting.world import die_with_parent;"
child += "die_with_parent(); print('armed', flush=True); time.sleep(60)"
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


def six_ranks() -> Config:
    pools = [PoolConfig(name=name, device="cpu", ranks=2) for name in ("gpu", "npu", "host")]
    return Config(models=(ModelConfig(path="demo"),), pools=tuple(pools))


@pytest.mark.parametrize(
    ("names", "rank", "size", "plan_rank"),
    [((), 5, 6, 5), (("npu",), 1, 2, 3), (("host", "gpu"), 1, 4, 1), (("host", "gpu"), 2, 4, 4)],
)
def test_pools_take_their_plan_ranks_in_the_order_of_the_file(
    names: tuple[str, ...], rank: int, size: int, plan_rank: int
) -> None:
    launch = in_pools(six_ranks(), LaunchedWorld(rank, size, rank, size, is_launched=True), names)
    assert (launch.rank, launch.size, launch.launch_rank) == (plan_rank, 6, rank)
    assert launch.in_mpirun.size == size


def test_the_named_pools_must_add_up_to_the_ranks() -> None:
    launched = LaunchedWorld(0, 2, 0, 2, is_launched=True)
    with pytest.raises(ConfigError, match=r"^pools need 4 ranks \(gpu: 2, host: 2\), mpirun sta"):
        in_pools(six_ranks(), launched, ["host", "gpu"])
    with pytest.raises(ConfigError, match=r'^--pools: there is no pool "tpu"; use gpu, npu, host'):
        in_pools(six_ranks(), launched, ["tpu"])


def test_links_listen_beyond_loopback_only_where_ranks_do() -> None:
    """Whichever mpirun started them: size and local_size count the ranks of all."""
    one_host = LaunchedWorld(0, 6, 0, 6, is_launched=True, mpirun=Launch(0, 2, 0, 2))
    assert bind_address(one_host) == host_address(one_host) == "127.0.0.1"
    assert reachable_addresses(7000, one_host) == "tcp://127.0.0.1:7000"
    assert bind_address(LaunchedWorld(0, 6, 0, 2, is_launched=True)) == "0.0.0.0"


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
