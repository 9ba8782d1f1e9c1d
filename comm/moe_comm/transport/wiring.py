"""Wires between ranks of several mpiruns, and what is done where there is no way between some."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from moe_comm.transport.exchange import PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.lifeline import Lifeline
from moe_comm.transport.tcp_mesh import CutOffError, TcpMesh

# For ranks that have just met.
_WIRING_SECONDS = 30.0


def open_wires(
    mesh: TcpMesh, joined: Joined, ranks: Sequence[int], should_stop: Callable[[], bool]
) -> dict[int, socket.socket]:
    """To all of some ranks that are of other mpiruns; called by all of them together.

    Raises:
        CutOffError: there is no way to one of them.
        PeerLostError: one has ended, or not all came in time.
    """
    # Plan rank 0 has lines.
    wired = [rank for rank in ranks if rank > 0]
    if joined.plan_rank not in wired:
        return {}
    foreign = set(wired).difference(joined.mpirun_ranks)
    return mesh.connect(wired, _WIRING_SECONDS, should_stop, foreign)


@contextmanager
def reporting_cuts(lifeline: Lifeline | None, epoch: int, seconds: float) -> Iterator[None]:
    """Tell plan rank 0 of a CutOffError, and wait so long at most until it has said which end goes
    on: it need not be this one."""
    try:
        yield
    except CutOffError as error:
        if lifeline is not None:
            lifeline.report_cut(epoch, frozenset({error.rank}))
            with suppress(PeerLostError):
                lifeline.wait_beyond(epoch, seconds)
        raise
