"""Fixtures for all tests: launching real MPI ranks."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from typing import Any

import psutil
import pytest

from moe_serve.control.meeting.mpirun import mpirun_command
from moe_serve.even_steps import unwatched_imports

MpiRun = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """It imports torch and transformers."""
    with unwatched_imports():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """In models this small a second thread only waits for the first, and takes the ranks' core."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mpirun() -> MpiRun:
    """`mpirun(num_ranks, args, timeout, options=())`: runs Python with args on that many ranks.

    Output is captured as text. After `timeout` seconds everything it started is killed and
    subprocess.TimeoutExpired raised, with the output so far.
    """
    return _run


def _run(
    num_ranks: int, args: list[str], timeout: float, options: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    process = subprocess.Popen(
        mpirun_command(num_ranks, [*options, sys.executable, *args]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except BaseException as error:
        output, errors = _kill(process)
        error.add_note(f"stdout:\n{output}\nstderr:\n{errors}")
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _environment() -> dict[str, str]:
    return os.environ | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMP_NUM_THREADS": "1",
    }


def _kill(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """The ranks have process groups of their own: find them before their parent is gone."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        if member.is_running():
            member.kill()
    return process.communicate()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU what needs one is skipped, also where nobody deselects it."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
