"""A rank's place in a world whose members know one another, in one mpirun or in several."""

import socket
from dataclasses import dataclass

from moe_comm.membership import Member, Membership
from moe_comm.transport.rendezvous_book import Comeback
from moe_comm.transport.rendezvous_host import Host


@dataclass(frozen=True, slots=True)
class Joined:
    """What a rank has of the others, before anything heavy is loaded.

    Attributes:
        plan_rank: this rank.
        key: known to the ranks of this world alone; empty in one mpirun.
        listener: where ranks of other mpiruns reach this one; None in one mpirun.
        host: on plan rank 0 of several mpiruns, what answers those that come late.
        comeback: for a rank of an mpirun that was lost and is there again.
        silent_seconds: after which a rank of another mpirun counts as lost; 0 in one mpirun.
    """

    plan_rank: int
    membership: Membership
    key: bytes = b""
    listener: socket.socket | None = None
    host: Host | None = None
    comeback: Comeback | None = None
    silent_seconds: float = 0.0

    @property
    def member(self) -> Member:
        return self.membership.members[self.plan_rank]

    @property
    def mpirun_ranks(self) -> tuple[int, ...]:
        """Plan ranks of this rank's mpirun, which numbers its ranks in the same order."""
        members = self.membership.members
        return tuple(each.plan_rank for each in members if each.mpirun == self.member.mpirun)
