"""Where several mpiruns become one world: plan rank 0 waits at an address, the others come there.

Neither torch nor numpy is loaded yet. One visit of the first rank of each mpirun is all: it
presents its mpirun's members and is told, once all pools are there, who is in the world, or why
there will be none. Strangers are turned away and do no harm.
"""

import errno
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from moe_comm.transport.rendezvous_book import Answer, Party
from moe_comm.transport.rendezvous_guest import visit
from moe_comm.transport.rendezvous_host import Host
from moe_comm.transport.rendezvous_point import MeetingPoint, RendezvousError


def assemble(
    point: MeetingPoint, party: Party, pools: Sequence[str], *, is_host: bool
) -> tuple[Answer, Host | None]:
    """One mpirun's part in forming the world; called by the first rank of each.

    Args:
        pools: of the whole world.
        is_host: plan rank 0 is in this mpirun.

    Returns:
        The members, and the host where that is this process.

    Raises:
        RendezvousError: there is no world.
    """
    host = _open_host(point, pools) if is_host else None
    answer = host.meet(party) if host else visit(point, party)
    if answer.refusal:
        raise RendezvousError(answer.refusal)
    return answer, host


def tell(point: MeetingPoint, party: Party, pools: Sequence[str]) -> None:
    """Make an error known to the mpiruns that are waiting, or come within seconds."""
    point = replace(point, wait_seconds=point.tell_seconds)
    with suppress(RendezvousError):
        host = _open_host(point, pools)
        if host:
            host.meet(party)
        else:
            visit(point, party)


def _open_host(point: MeetingPoint, pools: Sequence[str]) -> Host | None:
    """None where another process has the address already: it is the one to be asked."""
    try:
        return Host(point, pools)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise RendezvousError(
            f"world.address {point.address}: cannot listen there: {error.strerror}; name an "
            "address of the host of plan rank 0"
        ) from error
