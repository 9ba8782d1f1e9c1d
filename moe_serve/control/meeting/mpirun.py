"""The environment's own mpirun, and how ranks are started with it."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from moe_serve.errors import BringUpError

_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def mpirun_command(num_ranks: int, command: Sequence[str]) -> list[str]:
    """`command` on `num_ranks` ranks, which may outnumber the cores and bind themselves.

    What mpirun keeps in files goes with this process.

    Raises:
        BringUpError: there is no mpirun beside this Python.
    """
    # Not the PATH's: launcher and library must be of one version.
    mpirun = Path(sys.executable).parent / "mpirun"
    if not mpirun.is_file():
        raise BringUpError(
            f"no mpirun beside {sys.executable}; install it with: pip install 'moe-serve[serve]'"
        )
    # It names them by its process id, and does not start where one that was killed, of the same
    # id, has left any.
    files = ["--prtemca", "prte_local_tmpdir_base", _own_folder()]
    words = ["--oversubscribe", "--bind-to", "none", *files]
    return [str(mpirun), "-n", str(num_ranks), *words, *command]


def _own_folder() -> str:
    folder = tempfile.mkdtemp(prefix="moe_serve-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def mpirun_environment() -> dict[str, str]:
    """This process's environment, for mpirun alone allowing what root needs to be allowed."""
    return {**os.environ, **(_AS_ROOT if os.geteuid() == 0 else {})}
