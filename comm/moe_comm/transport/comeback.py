"""How a lost mpirun that was started again comes back: plan rank 0 lets it in, or says why not."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from moe_comm.membership import Member, Membership, disagreement
from moe_comm.transport.lifeline_host import HostLifeline
from moe_comm.transport.lifeline_return import Returning
from moe_comm.transport.rendezvous_book import Answer, Comeback, Party

# One that is started at once may come before its end was noticed.
_NOTICE_SECONDS = 1.0
_TURN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Readmission:
    """Plan rank 0's answers to mpiruns that come when the world is complete.

    Attributes:
        welcome: gives whatever those that come back must know of the ranks that serve.
    """

    lifeline: HostLifeline
    welcome: Callable[[], bytes]

    def answer(self, party: Party, refusal: Answer) -> Answer:
        """
        Args:
            refusal: for those that are none of the lost ones.
        """
        own = {member.plan_rank: member for member in party.members}
        if not own or party.error or not self._are_lost(set(own)):
            return refusal
        fault = self._objection(party, own)
        if fault:
            return Answer(refusal=f"{party} cannot come back: {fault}")
        returning = Returning(party.members)
        self.lifeline.expect(returning)
        record = self.lifeline.record
        return Answer(
            members=tuple(own.get(rank, each) for rank, each in self.lifeline.members.items()),
            comeback=Comeback(
                epoch=record.epoch,
                lost=tuple(sorted(record.lost)),
                lifeline=self.lifeline.address,
                pass_word=returning.pass_word,
                welcome=self.welcome(),
            ),
        )

    def _are_lost(self, ranks: set[int]) -> bool:
        end = time.monotonic() + self.lifeline.silent_seconds + _NOTICE_SECONDS
        while not ranks <= self.lifeline.record.lost:
            if time.monotonic() > end or not ranks <= set(self.lifeline.members):
                return False
            time.sleep(_TURN_SECONDS)
        return True

    def _objection(self, party: Party, own: dict[int, Member]) -> str | None:
        members = self.lifeline.members
        mpiruns = {members[rank].mpirun for rank in own}
        lost = {
            rank
            for rank, member in members.items()
            if member.mpirun in mpiruns and rank in self.lifeline.record.lost
        }
        if lost != set(own):
            pools = ",".join(dict.fromkeys(members[rank].pool for rank in sorted(lost)))
            return f"its mpirun was lost as a whole; start it as it was, with --pools {pools}"
        host = members[0]
        # One by one, so that plan rank 0 counts as right however many have come.
        for some in (*((member,) for member in party.members), party.members):
            fault = disagreement(Membership(0, (host, *some)), is_complete=False)
            if fault is not None:
                return fault
        return None
