"""What the launcher says about this process, read before anything heavy is imported."""

from collections.abc import Mapping
from dataclasses import dataclass

_LAUNCHERS = (  # Open MPI; then MPICH and its kin
    (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)


@dataclass(frozen=True, slots=True)
class Launch:
    """This process among those of its mpirun; alone, it is rank 0 of 1.

    Attributes:
        local_rank, local_size: the same among the processes of this host.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Reads the launcher's variables, e.g. from os.environ; none of them is a setting of ours."""
    for names in _LAUNCHERS:
        if all(name in environment for name in names):
            return Launch(*(int(environment[name]) for name in names))
    return Launch()
