"""All ranks of an mpirun before anything heavy is loaded: MPI is started, torch and numpy not."""

from __future__ import annotations

import time
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING

from moe_comm.launch import Launch

if TYPE_CHECKING:
    from mpi4py import MPI


_TURN_SECONDS = 0.001


class LauncherError(ValueError):
    """The mpirun that started the ranks is not of the MPI that they use."""


class RollCall:
    """Starts MPI, unless this process is alone; made by all ranks.

    A rank that ends while another is just being connected to its mpirun can hang or crash that
    mpirun (seen with Open MPI 5.0.11). So even a rank that knows early that it cannot go on comes
    here first, and tells it to the others.

    Raises:
        LauncherError: MPI finds other numbers of ranks than its launcher's variables say.
    """

    def __init__(self, launch: Launch) -> None:
        self.rank = launch.rank
        self.size = launch.size
        self._communicator = start_mpi() if launch.size > 1 else None
        if self._communicator is not None and self._communicator.size != launch.size:
            raise LauncherError(
                f"the launcher started {launch.size} ranks, but MPI sees "
                f"{self._communicator.size}; use the mpirun of this Python's MPI, it is in the "
                "same bin directory"
            )

    def allgather_bytes(self, data: bytes) -> list[bytes]:
        """-> the data of each rank in the launcher's order; waits for all of them."""
        if self._communicator is None:
            return [data]
        lengths = array("q", bytes(8 * self.size))
        _sleep_until_done(self._communicator.Iallgather(array("q", [len(data)]), lengths))
        gathered = bytearray(sum(lengths))
        receive = [gathered, lengths.tolist()]
        _sleep_until_done(self._communicator.Iallgatherv(bytearray(data), receive))
        ends = accumulate(lengths)
        return [bytes(gathered[end - n : end]) for n, end in zip(lengths, ends, strict=True)]


def _sleep_until_done(request: MPI.Request) -> None:
    """Another mpirun may be waited for: a blocking call would spin on a core all the while."""
    while not request.Test():
        time.sleep(_TURN_SECONDS)


def start_mpi() -> MPI.Intracomm:
    """Initialise MPI once -> the communicator of all ranks; returns when all have come.

    Afterwards any one thread may call MPI, not necessarily the main one.
    """
    import mpi4py

    mpi4py.rc.initialize = False
    mpi4py.rc.finalize = False
    from mpi4py import MPI

    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_SERIALIZED)
    return MPI.COMM_WORLD
