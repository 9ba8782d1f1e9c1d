"""All ranks of one or several mpiruns: where exchanges come from, and how all of them end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from moe_comm.launch import Launch
from moe_comm.transport.comeback import Readmission
from moe_comm.transport.exchange import Exchange, PeerLostError
from moe_comm.transport.joined import Joined
from moe_comm.transport.lifeline import Lifeline, Record
from moe_comm.transport.lifeline_host import HostLifeline
from moe_comm.transport.lifeline_open import open_lifeline, open_lifeline_again
from moe_comm.transport.local import LocalExchange
from moe_comm.transport.mpi import MpiExchange
from moe_comm.transport.mpirun_groups import MpirunGroups
from moe_comm.transport.roll_call import start_mpi
from moe_comm.transport.tcp import TcpExchange
from moe_comm.transport.tcp_mesh import TcpMesh
from moe_comm.transport.wiring import open_wires, reporting_cuts

if TYPE_CHECKING:
    from mpi4py import MPI

logger = logging.getLogger(__name__)

# A loss is known to plan rank 0 within the silence that counts as one; the rest is for the news.
_SILENCES_UNTIL_NEWS = 3
# Openings of one epoch of the membership; of all of them, one is never numbered like another.
_MOST_OPENINGS = 1 << 32


class World:
    """The ranks that one plan numbers; a process that no mpirun started is a world of its own.

    MPI's own rank numbers stay in here: an exchange numbers its ranks by plan rank.

    Args:
        launch: this process among those of its own mpirun.
        communicator: of that mpirun's ranks; None where this process is its only one.
        joined: what the ranks have of each other; without it this mpirun is all of the world,
            and its ranks are the plan's.

    Attributes:
        record: of those that are still there, as this rank has acted on it.
    """

    def __init__(
        self, launch: Launch, communicator: MPI.Comm | None, joined: Joined | None = None
    ) -> None:
        self.launch = launch
        self.plan_rank = joined.plan_rank if joined else launch.rank
        self.size = len(joined.membership.members) if joined else launch.size
        comeback = joined.comeback if joined else None
        self.record = Record(comeback.epoch, frozenset(comeback.lost)) if comeback else Record()
        self._mpirun_ranks = frozenset(joined.mpirun_ranks if joined else range(launch.size))
        self._joined = joined
        self._mesh = TcpMesh(joined) if joined and joined.listener else None
        self._lifeline: Lifeline | None = None
        self._communicator = communicator
        self._groups = MpirunGroups(communicator) if communicator is not None else None
        self._num_openings = 0
        self._exchanges: list[MpiExchange | TcpExchange] = []
        # What MPI has under way there ends never, and uses its buffers until then.
        self._abandoned: list[MpiExchange | TcpExchange] = []

    @property
    def ranks(self) -> tuple[int, ...]:
        """Plan ranks that are not lost."""
        return tuple(rank for rank in range(self.size) if rank not in self.record.lost)

    def open_exchange(
        self,
        members: Sequence[int],
        deadline_seconds: float,
        should_stop: Callable[[], bool],
    ) -> Exchange:
        """An exchange of this rank's group; called by all ranks of the world at the same point.

        Args:
            members: plan ranks of this rank's group; groups do not overlap. Inside one mpirun
                they use MPI, otherwise TCP; a lone member has nobody to exchange with.
            deadline_seconds: the longest that a call of the exchange, and this one, waits.
            should_stop: the control flag; true ends a wait at once, as a loss in the world does.

        Raises:
            PeerLostError: not all members, or not all ranks of this mpirun, came in time.
        """
        assert self.plan_rank in members and len(set(members)) == len(members)
        stop = self._or_lost(should_stop)
        over_mpi = len(members) > 1 and self._mpirun_ranks.issuperset(members)
        part = self._open_group(min(members) if over_mpi else None, deadline_seconds, stop)
        if len(members) == 1:
            return LocalExchange()
        exchange: MpiExchange | TcpExchange
        if part is not None:
            exchange = MpiExchange(part, deadline_seconds, stop)
            part.Free()
        else:
            assert self._mesh is not None
            with reporting_cuts(self._lifeline, self.record.epoch, self._news_seconds):
                connections = self._mesh.connect(sorted(members), deadline_seconds, stop)
            exchange = TcpExchange(sorted(members), connections, deadline_seconds, stop)
        self._exchanges.append(exchange)
        return exchange

    def follow_peers(self, everybody: Exchange, welcome: Callable[[], bytes]) -> None:
        """Keep, from now on, the record of who is there; called by all ranks together, or by all
        those that come back together.

        In one mpirun there is none: the launcher ends all ranks with the first.

        Args:
            everybody: an exchange of all ranks; with those alone that come back it is not used.
            welcome: on plan rank 0, what ranks that come back are told; asked in a thread of its
                own.

        Raises:
            PeerLostError: somebody is gone already.
        """
        joined = self._joined
        if joined is None or self._mesh is None:
            return
        if joined.comeback is not None:
            self._lifeline = open_lifeline_again(joined)
            return
        self._lifeline = lifeline = open_lifeline(joined, everybody)
        if isinstance(lifeline, HostLifeline) and joined.host is not None:
            joined.host.readmit = Readmission(lifeline, welcome).answer
        self.watch_links()

    def watch_links(self) -> None:
        """From now on a cut link between any mpiruns is missed; called by all ranks that are there,
        once they have met in the epoch of `record`. Whoever is found lost by it will be missed.
        """
        if self._lifeline is None or self._joined is None or self._mesh is None:
            return
        stop = self._or_lost(lambda: False)
        try:
            with reporting_cuts(self._lifeline, self.record.epoch, self._news_seconds):
                wires = open_wires(self._mesh, self._joined, self.ranks, stop)
        except PeerLostError as error:
            logger.warning("links to other ranks than plan rank 0 are not watched: %s", error)
        else:
            self._lifeline.watch(self.record.epoch, wires)

    def check_peers(self) -> None:
        """For times in which nothing is exchanged: is there still everybody?

        Raises:
            PeerLostError: a rank of another mpirun has ended, or has come back.
        """
        if self.is_outdated():
            raise PeerLostError("a rank was lost, or is there again")
        for exchange in self._exchanges:
            if isinstance(exchange, TcpExchange) and not exchange.is_lost:
                exchange.check_peers()

    def is_outdated(self) -> bool:
        """Somebody was lost or came back since `record`, or this world has ended."""
        return self.has_changed or (self._lifeline is not None and bool(self._lifeline.ending))

    @property
    def has_changed(self) -> bool:
        """Somebody was lost or came back since `record`, and those that are there can go on."""
        lifeline = self._lifeline
        return (
            lifeline is not None
            and not lifeline.ending
            and lifeline.record.epoch > self.record.epoch
        )

    def leave_lost_behind(self) -> Record:
        """After a PeerLostError: learn who was lost or is there again, and give up every exchange,
        for new ones to be opened among those that are there.

        Raises:
            PeerLostError: nobody was, or this world has ended; there is no going on.
        """
        if self._lifeline is None:
            raise PeerLostError("a rank was lost, and there is one mpirun alone")
        accused = frozenset[int]().union(*(each.lost_ranks for each in self._exchanges))
        if accused - self.record.lost:
            self._lifeline.accuse(self.record.epoch, accused - self.record.lost)
        self.record = self._lifeline.wait_beyond(self.record.epoch, self._news_seconds)
        while self.plan_rank in self.record.lost:
            # One that comes back may hear of others first.
            self.record = self._lifeline.wait_beyond(self.record.epoch, self._news_seconds)
        self._num_openings = 0
        for exchange in self._exchanges:
            exchange.abandon()
        self._abandoned += self._exchanges
        self._exchanges = []
        if self._mesh is not None:
            self._mesh.start_epoch(self.record.epoch, dict(self.record.addresses))
        return self.record

    def part(self, seconds: float) -> None:
        """Agree with all that are there that the world is over; `close` it then. In one mpirun
        there is nothing to agree on.

        Raises:
            PeerLostError: somebody was lost or came back before that, or did not come in time.
        """
        if self._lifeline is not None:
            self._lifeline.part(self.record.epoch, seconds)

    def close(self) -> None:
        """Close what was opened and leave MPI, unless a lost peer would be waited for."""
        for exchange in self._exchanges:
            exchange.abandon() if exchange.is_lost else exchange.close()
        if self._lifeline is not None:
            self._lifeline.close()
        if self._mesh is not None:
            self._mesh.close()
        if self._joined is not None and self._joined.host is not None:
            self._joined.host.close()
        if self._communicator is not None and not any(each.is_lost for each in self._exchanges):
            from mpi4py import MPI

            MPI.Finalize()

    def _or_lost(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: should_stop() or self.is_outdated()

    @property
    def _news_seconds(self) -> float:
        return _SILENCES_UNTIL_NEWS * self._joined.silent_seconds if self._joined else 0.0

    def _open_group(
        self, colour: int | None, deadline_seconds: float, should_stop: Callable[[], bool]
    ) -> MPI.Comm | None:
        """The ranks of this mpirun that gave one colour; None for those who gave none."""
        if self._groups is None:
            return None
        self._num_openings += 1
        opening = self.record.epoch * _MOST_OPENINGS + self._num_openings
        return self._groups.open(opening, colour, self.plan_rank, deadline_seconds, should_stop)


def open_world(launch: Launch, joined: Joined | None = None) -> World:
    """Initialise MPI, unless it is or this process is alone; waits for its mpirun's ranks to.

    Args:
        launch: this process among those of its own mpirun.
    """
    return World(launch, start_mpi() if launch.size > 1 else None, joined)
