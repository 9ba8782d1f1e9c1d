"""Bytes that wait to be sent, by peer: taken by the engine's thread, given back by the other."""

import threading
from collections import Counter
from collections.abc import Collection


class Budget:
    """At most `limit` bytes wait for each peer; more only if they are all that waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, peers: Collection[str], num_bytes: int) -> bool:
        """For every peer, or for none."""
        with self._lock:
            full = any(
                self._waiting[peer] and self._waiting[peer] + num_bytes > self._limit
                for peer in peers
            )
            if not full:
                self._waiting.update(dict.fromkeys(peers, num_bytes))
            return not full

    def give_back(self, peer: str, num_bytes: int) -> None:
        with self._lock:
            self._waiting[peer] -= num_bytes
            assert self._waiting[peer] >= 0

    def waiting(self, peer: str) -> int:
        with self._lock:
            return self._waiting[peer]
