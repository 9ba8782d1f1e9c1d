"""How long and how much a KV endpoint waits for and holds."""

from dataclasses import dataclass

MAX_BLOCK_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLimits:
    """
    Attributes:
        silence_seconds: after which a peer that sends not even a ping is lost.
        idle_seconds: after which a transfer on which nothing moves has failed, although its peer
            is alive: longer than a chunk of prefill, or a wait for free pages, may take.
        connect_seconds: how long a call is repeated, and how long a greeting may take.
        bytes_in_flight: most bytes that wait to be sent to one peer, and most that wait to be
            polled; a single larger block goes alone.
    """

    silence_seconds: float = 2.0
    idle_seconds: float = 30.0
    connect_seconds: float = 10.0
    bytes_in_flight: int = 256 << 20

    @property
    def ping_seconds(self) -> float:
        return min(0.25, self.silence_seconds / 4)
