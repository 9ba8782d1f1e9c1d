"""Two ranks open groups, `mpirun -n 2 python groups_worker.py`: one is called away while the other
has gone on to wait in MPI for it; then both open what they need now, and it is sound."""

import time
import traceback
from collections.abc import Callable

from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.mpirun_groups import MpirunGroups
from moe_comm.transport.roll_call import start_mpi
from mpi_worker import end_all_ranks

LIMIT_SECONDS = 20.0
OLD, LATER, NEW = 1, 2, 100


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def leave(groups: MpirunGroups, opening: int, rank: int, should_stop: Callable[[], bool]) -> None:
    try:
        groups.open(opening, 0, rank, LIMIT_SECONDS, should_stop)
    except PeerLostError:
        return
    raise AssertionError(f"rank {rank} was not called away from opening {opening}")


def main() -> None:
    world = start_mpi()
    from mpi4py import MPI

    rank, groups = world.rank, MpirunGroups(world)
    if rank == 1:
        # It has come to the round, and does not see the end of it.
        leave(groups, OLD, rank, lambda: True)
        time.sleep(1.0)
    else:
        time.sleep(0.5)
        part = groups.open(OLD, 0, rank, LIMIT_SECONDS, after(LIMIT_SECONDS))
        assert part is not None and part.size == 2, "the group has lost a rank"
        # It hears a little later than the other that the membership has changed.
        leave(groups, LATER, rank, after(0.3))
    # Ranks that are alone give no colour; then both are a group.
    assert groups.open(NEW, None, rank, LIMIT_SECONDS, after(LIMIT_SECONDS)) is None
    both = groups.open(NEW + 1, 0, rank, LIMIT_SECONDS, after(LIMIT_SECONDS))
    assert both is not None and both.size == 2, "the new group has lost a rank"
    assert both.allgather(rank) == [0, 1]
    print(f"sound {rank}", flush=True)
    MPI.Finalize()


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        end_all_ranks(1)
