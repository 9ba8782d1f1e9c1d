"""Links of a simulation: bytes that passed, and when a transfer is through."""

from collections.abc import Iterable

from moe_placement.simulator.deployment import KvTransfer, SimulatedLink


class Links:
    """Counts all bytes; transfers of KV caches also wait for those before them.

    What is sent while prefills run shares the link with what others send meanwhile; behind a
    prefill its last layer alone waits, for the last layers of those that ended before.

    Attributes:
        num_bytes: that passed so far, by link.
    """

    def __init__(self, links: Iterable[SimulatedLink]) -> None:
        self._links = {link.name: link for link in links}
        self._work_until = dict.fromkeys(self._links, 0.0)
        self._last_layer_at = dict.fromkeys(self._links, 0.0)
        self.num_bytes = dict.fromkeys(self._links, 0.0)

    def count(self, name: str, num_bytes: float) -> None:
        self.num_bytes[name] += num_bytes

    def send(self, transfer: KvTransfer, num_tokens: int, began: float, ended: float) -> float:
        """Send the KV cache of a prefill, layer by layer, and return when it has arrived.

        Args:
            began, ended: seconds; the last layer cannot leave before the end.
        """
        name, link = transfer.link, self._links[transfer.link]
        num_bytes = num_tokens * transfer.bytes_per_token
        seconds = num_bytes / link.bandwidth
        earliest = ended if transfer.num_layers == 1 else began
        self._work_until[name] = max(self._work_until[name], earliest) + seconds
        last_layer = max(self._last_layer_at[name], ended) + seconds / transfer.num_layers
        self._last_layer_at[name] = through = max(self._work_until[name], last_layer)
        self.count(name, num_bytes)
        return through + link.latency
