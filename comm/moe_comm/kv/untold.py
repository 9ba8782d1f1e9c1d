"""Offers that ended while a receiver could not be told: it hears of them when it is back.

To a receiver whose view of a connection is ahead of the sender's, they would seem to be late only.
"""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ended:
    request_id: str
    num_tokens: int
    reason: str
    time: float = field(default_factory=time.monotonic)


class Untold:
    def __init__(self) -> None:
        self._by_peer: dict[str, list[Ended]] = {}

    def note(self, peer: str, ended: Ended) -> None:
        self._by_peer.setdefault(peer, []).append(ended)

    def take(self, peer: str) -> list[Ended]:
        return self._by_peer.pop(peer, [])

    def on_time(self, seconds: float) -> None:
        """Forget what is older: nobody waits for it any more."""
        oldest = time.monotonic() - seconds
        for peer, all_ended in tuple(self._by_peer.items()):
            self._by_peer[peer] = recent = [each for each in all_ended if each.time >= oldest]
            if not recent:
                del self._by_peer[peer]
