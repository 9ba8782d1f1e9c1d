"""A link that is only declared: when what leaves over it may arrive."""


class DeclaredLink:
    """Of one rank that sends; its connections to the same pool share it.

    Args:
        bandwidth: bytes per second.
        latency: seconds.
    """

    def __init__(self, bandwidth: float, latency: float) -> None:
        self._bandwidth = bandwidth
        self._latency = latency
        self._free = 0.0

    def arrival(self, ready: float, num_bytes: int) -> float:
        """When bytes arrive that could leave at a time, after those that this was asked before."""
        self._free = max(self._free, ready) + num_bytes / self._bandwidth
        return self._free + self._latency
