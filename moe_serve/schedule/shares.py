"""Whose step is next: shares of one device's time, kept to within about a step.

Each tenant has an account of the seconds that it is owed. Time that passes is put down to accounts
by their shares and taken from the account of who used it, after deficit round-robin (Shreedhar and
Varghese, SIGCOMM 1995); the largest account is next, which is what rounds become as their quantum
goes to zero. What a step takes is known only after it: an account may be overdrawn, by no more
than a step. No clock here: the same calls lead to the same turns, on every rank.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

# After so long without work, what a tenant overdrew is forgotten.
_WINDOW_SECONDS = 1.0


@dataclass(slots=True)
class _Account:
    """Attributes:
    share: of the device's time, from 0 to 1.
    is_hard: never has more, even of time that nobody else wants.
    owed: seconds.
    used: seconds since the account was opened.
    idle_since: on the clock of all seconds charged; None while it has work.
    """

    share: float
    is_hard: bool
    idle_since: float | None
    owed: float = 0.0
    used: float = 0.0


class Shares:
    """Tenants are numbers; `wanting` are those that have work."""

    def __init__(self) -> None:
        self._accounts: dict[int, _Account] = {}
        self._wanting: frozenset[int] = frozenset()
        self._passed = 0.0

    def __contains__(self, tenant: int) -> bool:
        return tenant in self._accounts

    def open(self, tenant: int, share: float, *, is_hard: bool = False) -> None:
        assert tenant not in self._accounts, f"tenant {tenant} has an account"
        self._accounts[tenant] = _Account(share, is_hard, self._passed - _WINDOW_SECONDS)

    def change(self, tenant: int, share: float, *, is_hard: bool = False) -> None:
        account = self._accounts[tenant]
        account.share, account.is_hard = share, is_hard

    def close(self, tenant: int) -> None:
        del self._accounts[tenant]
        self._wanting -= {tenant}

    def used(self, tenant: int) -> float:
        """Seconds of the device since the account was opened."""
        return self._accounts[tenant].used

    def is_hard(self, tenant: int) -> bool:
        return self._accounts[tenant].is_hard

    def is_contended(self, tenant: int) -> bool:
        """Whether others have work, or had some of late: they may come again at any time."""
        return any(
            other != tenant
            and (account.idle_since is None or self._passed - account.idle_since < _WINDOW_SECONDS)
            for other, account in self._accounts.items()
        )

    def charge(self, tenant: int | None, seconds: float) -> None:
        """So much time has passed; it was used by one tenant, or by nobody."""
        self._passed += seconds
        lent = 0.0
        if tenant is not None:
            account = self._accounts[tenant]
            account.used += seconds
            account.owed -= seconds
            lent = 0.0 if account.is_hard else seconds
        self._put_down(seconds, lent)

    def want(self, wanting: Collection[int]) -> None:
        """Who has work from now on. Who had none before is owed nothing, and may still owe."""
        now = self._accounts.keys() & wanting
        for tenant in now - self._wanting:
            account = self._accounts[tenant]
            idle_since = self._passed if account.idle_since is None else account.idle_since
            is_forgotten = self._passed - idle_since > _WINDOW_SECONDS
            account.owed = 0.0 if is_forgotten else min(account.owed, 0.0)
            account.idle_since = None
        for tenant in self._wanting - now:
            self._accounts[tenant].idle_since = self._passed
        self._wanting = frozenset(now)

    def pick(self) -> int | None:
        """Who is next of those that have work; None where all of them have had their shares and
        may have no more yet."""
        accounts = self._accounts
        ready = [
            tenant
            for tenant in self._wanting
            if not accounts[tenant].is_hard or accounts[tenant].owed >= 0
        ]
        return max(ready, key=lambda tenant: (accounts[tenant].owed, -tenant), default=None)

    def seconds_to_wait(self) -> float:
        """Where `pick` is None: until it is not; infinite where nobody has work."""
        waits = [
            -self._accounts[tenant].owed / self._accounts[tenant].share
            for tenant in self._wanting
            if self._accounts[tenant].share > 0
        ]
        return min(waits, default=inf)

    def _put_down(self, seconds: float, lent: float) -> None:
        """
        Args:
            lent: of the seconds, those used by tenants whose shares are not hard: divided among
                all of them that have work.
        """
        sharing = []
        for tenant in self._wanting:
            account = self._accounts[tenant]
            if account.is_hard:
                account.owed += account.share * seconds
            else:
                sharing.append(account)
        total = sum(account.share for account in sharing)
        # Together they are owed nothing, but for a while after one has left with its debt, which
        # it finds again if it comes back soon.
        excess = sum(account.owed for account in sharing) + lent
        lent -= excess * min(1.0, seconds / _WINDOW_SECONDS)
        for account in sharing:
            account.owed += lent * account.share / total
