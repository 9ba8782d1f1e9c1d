"""The signals that ask a server to finish what is live, and stop."""

import signal
from collections.abc import Callable, Sequence


class DrainSignals:
    """Listens for SIGUSR1, which mpirun forwards to every rank, from the moment it is made.

    A signal that comes before there is anything to drain is kept until there is.
    """

    def __init__(self) -> None:
        self._drain: Callable[[], None] | None = None
        self._is_asked = False
        signal.signal(signal.SIGUSR1, self._take)

    def act(self, drain: Callable[[], None], also: Sequence[signal.Signals] = ()) -> None:
        """Call `drain` now if asked already, and on every further signal.

        Args:
            also: further signals that drain, but kill when they come again.
        """
        self._drain = drain
        for number in also:
            signal.signal(number, self._take)
        if self._is_asked:
            drain()

    def _take(self, number: int, _frame: object) -> None:
        self._is_asked = True
        if number != signal.SIGUSR1:
            signal.signal(number, signal.SIG_DFL)
        if self._drain is not None:
            self._drain()
