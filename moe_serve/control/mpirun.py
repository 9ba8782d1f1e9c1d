"""The environment's own mpirun, and how ranks are started with it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_serve.errors import BringUpError

_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def mpirun_command(num_ranks: int, command: Sequence[str]) -> list[str]:
    """`command` on `num_ranks` ranks, which may outnumber the cores and bind themselves.

    Raises:
        BringUpError: there is no mpirun beside this Python.
    """
    # Not the PATH's: launcher and library must be of one version.
    mpirun = Path(sys.executable).parent / "mpirun"
    if not mpirun.is_file():
        raise BringUpError(
            f"no mpirun beside {sys.executable}; install it with: pip install 'moe-serve[serve]'"
        )
    return [str(mpirun), "-n", str(num_ranks), "--oversubscribe", "--bind-to", "none", *command]


def mpirun_environment() -> dict[str, str]:
    """This process's environment, for mpirun alone allowing what root needs to be allowed."""
    return {**os.environ, **(_AS_ROOT if os.geteuid() == 0 else {})}
