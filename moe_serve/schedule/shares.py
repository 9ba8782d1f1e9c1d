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

# After so long without work, what a tenant overdrew is forgotten; a hard one works it off.
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

    tenant: int
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
        # What follows from these at every step, kept because steps may be short: of those that
        # have work the hard ones, all others, and the sum of these ones' shares.
        self._hard: list[_Account] = []
        self._sharing: list[_Account] = []
        self._total_share = 0.0
        self._have_hard = False

    def __contains__(self, tenant: int) -> bool:
        return tenant in self._accounts

    def open(self, tenant: int, share: float, *, is_hard: bool = False) -> None:
        assert tenant not in self._accounts, f"tenant {tenant} has an account"
        self._accounts[tenant] = _Account(tenant, share, is_hard, self._passed - _WINDOW_SECONDS)
        self._list_accounts()

    def change(self, tenant: int, share: float, *, is_hard: bool = False) -> None:
        account = self._accounts[tenant]
        account.share, account.is_hard = share, is_hard
        self._list_accounts()

    def close(self, tenant: int) -> None:
        del self._accounts[tenant]
        self._wanting -= {tenant}
        self._list_accounts()

    @property
    def have_hard(self) -> bool:
        """Whether any account is hard, with work or without."""
        return self._have_hard

    def used(self, tenant: int) -> float:
        """Seconds of the device since the account was opened."""
        return self._accounts[tenant].used

    def is_bound(self, tenant: int) -> bool:
        """Whether its steps are to be short: it is hard, or others have work, or had some of late
        and may come again at any time."""
        if self._accounts[tenant].is_hard or len(self._wanting) > (tenant in self._wanting):
            return True
        return any(
            other != tenant
            and account.idle_since is not None
            and self._passed - account.idle_since < _WINDOW_SECONDS
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
        for account in self._hard:
            account.owed += account.share * seconds
        # What those used whose shares are not hard is divided among all of them that have work.
        # Together they are owed nothing, but for a while after one has left with its debt, which
        # it finds again if it comes back soon.
        excess = lent
        for account in self._sharing:
            excess += account.owed
        lent -= excess * min(1.0, seconds / _WINDOW_SECONDS)
        for account in self._sharing:
            account.owed += lent * account.share / self._total_share

    def want(self, wanting: Collection[int]) -> None:
        """Who has work from now on. Who had none before is owed nothing, and may still owe."""
        if wanting == self._wanting:
            return
        now = self._accounts.keys() & wanting
        for tenant in now - self._wanting:
            account = self._accounts[tenant]
            idle_since = self._passed if account.idle_since is None else account.idle_since
            idle = self._passed - idle_since
            if account.is_hard:
                account.owed = min(0.0, account.owed + account.share * idle)
            else:
                account.owed = 0.0 if idle > _WINDOW_SECONDS else min(account.owed, 0.0)
            account.idle_since = None
        for tenant in self._wanting - now:
            self._accounts[tenant].idle_since = self._passed
        self._wanting = frozenset(now)
        self._list_accounts()

    def pick(self) -> int | None:
        """Who is next of those that have work; None where all of them have had their shares and
        may have no more yet."""
        best: _Account | None = None
        for account in self._sharing:
            if best is None or account.owed > best.owed:
                best = account
        for account in self._hard:
            if account.owed >= 0 and (best is None or account.owed > best.owed):
                best = account
        return None if best is None else best.tenant

    def seconds_to_wait(self) -> float:
        """Where `pick` is None: until it is not; infinite where nobody has work."""
        waits = [
            -self._accounts[tenant].owed / self._accounts[tenant].share
            for tenant in self._wanting
            if self._accounts[tenant].share > 0
        ]
        return min(waits, default=inf)

    def _list_accounts(self) -> None:
        wanting = [self._accounts[tenant] for tenant in sorted(self._wanting)]
        self._hard = [account for account in wanting if account.is_hard]
        self._sharing = [account for account in wanting if not account.is_hard]
        self._total_share = sum(account.share for account in self._sharing)
        self._have_hard = any(account.is_hard for account in self._accounts.values())
