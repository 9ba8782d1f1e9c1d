"""Offers that ended while a receiver could not be told: it hears of them when it is back.

To a receiver whose view of a connection is ahead of the sender's, they would seem to be late only.
"""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ended:
    """Attributes:
    ended_at: on the monotonic clock.
    """

    request_id: str
    num_tokens: int
    reason: str
    ended_at: float = field(default_factory=time.monotonic)


class Untold:
    """What each peer is still to be told."""

    def __init__(self) -> None:
        self._by_peer: dict[str, list[Ended]] = {}

    def note(self, peer: str, ended: Ended) -> None:
        self._by_peer.setdefault(peer, []).append(ended)

    def take(self, peer: str) -> list[Ended]:
        return self._by_peer.pop(peer, [])

    def on_time(self, seconds: float) -> None:
        """Forget what is older: nobody waits for it any more."""
        oldest = time.monotonic() - seconds
        self._by_peer = {
            peer: recent
            for peer, all_ended in self._by_peer.items()
            if (recent := [each for each in all_ended if each.ended_at >= oldest])
        }
