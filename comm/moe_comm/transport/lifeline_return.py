"""An mpirun that comes back, until each of its ranks has its line to plan rank 0."""

import secrets
from collections.abc import Sequence

from moe_comm.membership import Member
from moe_comm.transport.lifeline_line import BeatLine

PASS_WORD_BYTES = 16


class Returning:
    """
    Attributes:
        members: by plan rank.
        pass_word: which its ranks show, and no earlier attempt of theirs knows.
        lines: of those that are ready to compute.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = {member.plan_rank: member for member in members}
        self.pass_word = secrets.token_bytes(PASS_WORD_BYTES)
        self.lines: dict[int, BeatLine] = {}

    @property
    def is_complete(self) -> bool:
        return self.lines.keys() == self.members.keys()

    def drop_ended(self, silent_seconds: float) -> None:
        """Those that have ended before all were there; they may come anew."""
        for rank, line in list(self.lines.items()):
            line.receive()
            if line.is_closed or line.is_silent(silent_seconds):
                self.lines.pop(rank).close()

    def close(self) -> None:
        for line in self.lines.values():
            line.close()
        self.lines.clear()
