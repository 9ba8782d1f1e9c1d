"""The ranks that one mpirun started: where exchanges come from, and how all of them end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from moe_comm.launch import Launch
from moe_comm.transport.exchange import Exchange, WaitLoop
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.mpi import MpiExchange
from moe_comm.transport.roll_call import start_mpi

if TYPE_CHECKING:
    from mpi4py import MPI


class World:
    """All ranks of this mpirun; a process that no mpirun started is a world of its own.

    MPI's own rank numbers stay in here: an exchange numbers its ranks by plan rank.
    """

    def __init__(self, launch: Launch, communicator: MPI.Comm | None) -> None:
        self.launch = launch
        self._communicator = communicator
        self._exchanges: list[MpiExchange] = []

    def open_exchange(
        self,
        plan_rank: int,
        deadline_seconds: float,
        should_stop: Callable[[], bool],
    ) -> Exchange:
        """An exchange of all ranks of the world, made by all of them.

        Args:
            plan_rank: gives the order of the ranks in the exchange.
            deadline_seconds: the longest that a call of the exchange, and this one, waits.
            should_stop: the control flag; true ends a wait at once.

        Raises:
            PeerLostError: not all ranks came in time.
        """
        if self._communicator is None:
            return LocalExchange()
        # Split has no non-blocking form: make sure first that everybody is there.
        arrival = self._communicator.Ibarrier()
        loop = WaitLoop(deadline_seconds, should_stop)
        loop.until(arrival.Test, "the other ranks to open an exchange")
        part = self._communicator.Split(0, plan_rank)
        exchange = MpiExchange(part, deadline_seconds, should_stop)
        part.Free()
        self._exchanges.append(exchange)
        return exchange

    def close(self) -> None:
        """Close what was opened and leave MPI, unless a lost peer would be waited for."""
        for exchange in self._exchanges:
            exchange.close()
        if self._communicator is not None and not any(each.is_lost for each in self._exchanges):
            from mpi4py import MPI

            MPI.Finalize()


def open_world(launch: Launch) -> World:
    """Initialise MPI, unless it is or this process is alone; waits for all ranks to do so."""
    return World(launch, start_mpi() if launch.size > 1 else None)
