"""Whose turn it is: among all ranks' tenants by what step headers say, on one rank by its clock."""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from moe_comm.header import NUM_TURNS, StepHeader

from moe_serve.config.validate import MAX_MODELS
from moe_serve.messages import ALL_RANKS
from moe_serve.schedule.shares import Shares

# The turn of all tenants that are on one rank each: every rank takes steps for its own ones.
ONE_RANK_TENANTS = NUM_TURNS - 1
assert MAX_MODELS <= ONE_RANK_TENANTS
# Of such a turn, in steps of the longest kind, while no tenant of all ranks has work.
_LONG_TURN = 5

Clock = Callable[[], float]


class Turn(NamedTuple):
    """Attributes:
    tenant: whose step it is, or ONE_RANK_TENANTS.
    max_seconds: that each of its steps should take at most; None where nobody waits for its end.
    seconds: that the turn may last, in steps of several tenants.
    """

    tenant: int
    max_seconds: float | None
    seconds: float


class GroupTurns:
    """The turns of an EP group, the same on all its ranks: they follow from agreed headers alone.

    The group's time is the latest of its ranks' clocks, so that a turn lasts as long as it does on
    the slowest rank, and whoever had it is charged with that.

    Args:
        max_step: seconds that a step may take while others have work.
    """

    def __init__(self, max_step: float, clock: Clock = time.perf_counter) -> None:
        self._shares = Shares()
        self._max_step = max_step
        self._clock = clock
        self._agreed = self._told = 0
        self._agreed_at = self._told_at = clock()
        self._current: int | None = None
        # Who has work on any rank, as the last header said.
        self._wanting: frozenset[int] = frozenset()
        # Of the tenants that are on one rank, by rank.
        self._one_rank_shares: dict[int, dict[int, float]] = {}

    def open(self, tenant: int, rank: int, share: float, *, is_hard: bool) -> None:
        if rank == ALL_RANKS:
            self._shares.open(tenant, share, is_hard=is_hard)
        else:
            self._one_rank_shares.setdefault(rank, {})[tenant] = share
            self._level_one_rank_tenants()

    def change(self, tenant: int, rank: int, share: float, *, is_hard: bool) -> None:
        if rank == ALL_RANKS:
            self._shares.change(tenant, share, is_hard=is_hard)
        else:
            self._one_rank_shares[rank][tenant] = share
            self._level_one_rank_tenants()

    def close(self, tenant: int, rank: int) -> None:
        if rank == ALL_RANKS:
            self._forget(tenant)
            return
        del self._one_rank_shares[rank][tenant]
        self._level_one_rank_tenants()

    @property
    def now(self) -> int:
        """Nanoseconds of the group's time, as this rank reckons."""
        return self._at(self._clock())

    def tell(self) -> int:
        """The same, to be told to the other ranks in a header."""
        self._told_at = self._clock()
        self._told = self._at(self._told_at)
        return self._told

    def used(self, tenant: int) -> float:
        """Seconds of a tenant of all ranks."""
        return self._shares.used(tenant)

    def next(self, header: StepHeader) -> Turn | None:
        """The turn that an agreed header begins; None where nobody has work and may have a turn."""
        self._shares.charge(self._current, (header.clock - self._agreed) / 1e9)
        # What the header itself takes is time of the turn that it begins: the rank whose clock all
        # go by counts on from where it told it.
        is_own = header.clock == self._told
        self._agreed_at = self._told_at if is_own else self._clock()
        self._agreed = header.clock
        self._want(header.turns)
        self._current = self._shares.pick()
        if self._current is None:
            return None
        is_bound = self._shares.is_bound(self._current)
        length = 1 if is_bound else _LONG_TURN
        return Turn(self._current, self._max_step if is_bound else None, length * self._max_step)

    def seconds_to_wait(self) -> float:
        """Where `next` is None: until it may not be."""
        return self._shares.seconds_to_wait()

    def _at(self, moment: float) -> int:
        return self._agreed + int((moment - self._agreed_at) * 1e9)

    def _want(self, wanting: frozenset[int]) -> None:
        if wanting == self._wanting:
            return
        self._wanting = wanting
        if ONE_RANK_TENANTS in self._shares:
            self._level_one_rank_tenants()
        self._shares.want(wanting)

    def _level_one_rank_tenants(self) -> None:
        """Together they have what those with work ask for on the rank where they ask for most."""
        share = self._one_rank_share(self._wanting) or self._one_rank_share(None)
        if not share:
            self._forget(ONE_RANK_TENANTS)
        elif ONE_RANK_TENANTS in self._shares:
            self._shares.change(ONE_RANK_TENANTS, share)
        else:
            self._shares.open(ONE_RANK_TENANTS, share)

    def _one_rank_share(self, among: frozenset[int] | None) -> float:
        """Of the rank where they ask for most; None is all of them."""
        return max(
            (
                sum(share for tenant, share in shares.items() if among is None or tenant in among)
                for shares in self._one_rank_shares.values()
            ),
            default=0.0,
        )

    def _forget(self, tenant: int) -> None:
        self._shares.close(tenant)
        self._wanting -= {tenant}
        if self._current == tenant:
            self._current = None


class RankTurns:
    """The turns of the tenants that are on one rank, within their common turn.

    Their time runs on between such turns: what is hard is measured by all of it.
    """

    def __init__(self, max_step: float, clock: Clock = time.perf_counter) -> None:
        self._shares = Shares()
        self._max_step = max_step
        self._clock = clock
        self._charged_at = clock()
        self._current: int | None = None

    def open(self, tenant: int, share: float, *, is_hard: bool) -> None:
        self._shares.open(tenant, share, is_hard=is_hard)

    def change(self, tenant: int, share: float, *, is_hard: bool) -> None:
        self._shares.change(tenant, share, is_hard=is_hard)

    def close(self, tenant: int) -> None:
        self._shares.close(tenant)
        if self._current == tenant:
            self._current = None

    def used(self, tenant: int) -> float:
        return self._shares.used(tenant)

    def next(self, wanting: Collection[int], *, is_bound: bool) -> Turn | None:
        """Charges whoever had the last turn with the time since then -> the next turn."""
        self.end()
        self._shares.want(wanting)
        self._current = self._shares.pick()
        if self._current is None:
            return None
        is_bound = is_bound or self._shares.is_bound(self._current)
        return Turn(self._current, self._max_step if is_bound else None, self._max_step)

    def end(self) -> None:
        """The last turn is over; until the next one the time is nobody's."""
        now = self._clock()
        self._shares.charge(self._current, now - self._charged_at)
        self._charged_at, self._current = now, None

    def may_run(self, wanting: Collection[int]) -> bool:
        """Whether any of those with work may have a turn now; between turns."""
        if not wanting or not self._shares.have_hard:
            return bool(wanting)
        self.end()
        self._shares.want(wanting)
        return self._shares.pick() is not None
