"""Which mpiruns have come to form a world, and what all of them are told: no sockets here."""

import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from moe_comm.membership import Member, Membership, disagreement


@dataclass(frozen=True, slots=True)
class Party:
    """One mpirun as it presents itself.

    Attributes:
        pools: which it serves.
        host: of its first rank.
        error: why it cannot go on; it has come to tell.
    """

    pools: tuple[str, ...]
    host: str
    members: tuple[Member, ...] = ()
    error: str = ""

    def __str__(self) -> str:
        word = "pool" if len(self.pools) == 1 else "pools"
        return f"the mpirun of {word} {', '.join(self.pools)} on host {self.host}"


@dataclass(frozen=True, slots=True)
class Comeback:
    """What a lost mpirun that was started again must know besides.

    Attributes:
        epoch, lost: the record of who is there, without it.
        lifeline: HOST:PORT where its ranks call when they are ready to compute.
        pass_word: which they show there.
        welcome: of those who serve, what they want it to know.
    """

    epoch: int
    lost: tuple[int, ...]
    lifeline: str
    pass_word: bytes
    welcome: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What all parties are told.

    Attributes:
        refusal: why there will be no world; empty where there is one.
        members: of all parties.
        session: this world's own, from which its key is made.
        comeback: for one that was lost; None for those that form the world.
    """

    refusal: str = ""
    members: tuple[Member, ...] = ()
    session: bytes = b""
    comeback: Comeback | None = None


class Book:
    """The parties that have come; one answer for all of them, once, from any thread.

    Args:
        pools: which must all have come.
    """

    def __init__(self, pools: Sequence[str]) -> None:
        self._pools = tuple(pools)
        self._parties: list[Party] = []
        self._told: set[str] = set()
        self._to_be_told = set(pools)
        self._answer: Answer | None = None
        self._changed = threading.Condition()
        self._last_turned_away = ""

    def enter(self, party: Party) -> Answer | None:
        """Write a party down; an answer at once is for one that comes too late."""
        with self._changed:
            if self._answer is None:
                self._parties.append(party)
                self._answer = self._decide(party)
                self._changed.notify_all()
                return None
            return self._late(self._answer)

    def leave(self, party: Party) -> None:
        """It has ended; it may come again."""
        with self._changed:
            if self._answer is None:
                self._parties.remove(party)

    def refuse(self, sentence: str) -> None:
        with self._changed:
            self._answer = self._answer or Answer(refusal=sentence)
            self._changed.notify_all()

    def turn_away(self, who: str, why: str) -> None:
        """Note somebody who may be no party at all."""
        self._last_turned_away = f"; the last to be turned away was {who}: {why}"

    def answer(self, seconds: float) -> Answer | None:
        """The answer, once there is one within so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None, seconds)
            return self._answer

    def note_told(self, party: Party) -> None:
        with self._changed:
            # One that claims all of them by mistake leaves those to be told that it is not.
            if len(party.pools) < len(self._pools):
                self._told.update(party.pools)
            self._changed.notify_all()

    def wait_until_told(self, seconds: float) -> None:
        """Return when the parties of all pools have their answer."""
        with self._changed:
            self._changed.wait_for(self._are_all_told, seconds)

    def give_up(self, seconds: float) -> None:
        """Refuse a world that is not complete after so many seconds."""
        here = {pool for party in self._parties for pool in party.pools}
        absent = ",".join(pool for pool in self._pools if pool not in here)
        # Those that did not come all the while need not be waited for any longer.
        self._to_be_told = here
        self.refuse(
            f"nobody came for pool{'s' * (',' in absent)} {absent} within {seconds:g} s; start an "
            f"mpirun with --pools {absent}, or raise world.wait{self._last_turned_away}"
        )

    def _are_all_told(self) -> bool:
        # A party that misspells its pools stands for as many of them.
        misspelt = self._told - self._to_be_told
        return len(misspelt) >= len(self._to_be_told - self._told)

    def _decide(self, party: Party) -> Answer | None:
        objection = self._objection(party)
        if objection:
            return Answer(refusal=objection)
        members = tuple(
            sorted(
                (member for each in self._parties for member in each.members),
                key=lambda member: member.plan_rank,
            )
        )
        is_complete = {pool for each in self._parties for pool in each.pools} == set(self._pools)
        fault = disagreement(Membership(0, members), is_complete=is_complete)
        if fault is not None:
            return Answer(refusal=fault)
        return Answer("", members, secrets.token_bytes(32)) if is_complete else None

    def _objection(self, party: Party) -> str:
        if party.error:
            return f"{party} cannot go on: {party.error}"
        for pool, times in Counter(pool for each in self._parties for pool in each.pools).items():
            if times > 1:
                first, second = (str(each) for each in self._parties if pool in each.pools)
                return f"pool {pool} is served twice, by {first} and by {second}; end one of them"
        unknown = [pool for pool in party.pools if pool not in self._pools]
        if unknown:
            return (
                f"{party} read a config with a pool {unknown[0]}, plan rank 0 one with "
                f"{', '.join(self._pools)}; give every mpirun the same config file"
            )
        return ""

    def _late(self, answer: Answer) -> Answer:
        if answer.refusal:
            return answer
        parties = "; ".join(str(each) for each in self._parties)
        return Answer(refusal=f"the world is complete already: {parties}")
