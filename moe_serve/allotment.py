"""What one served model may have of a rank's memory, and the longest request that fits there."""

from dataclasses import replace

from moe_serve.messages import PlacedTenant
from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.types import ServedModel


class Allotment:
    """
    Args:
        served: as it is while nothing has changed.
        max_context: of a model with cache pages: the most tokens of a request, however many pages.
        page_size: tokens in a page.
    """

    def __init__(
        self,
        ledger: MemoryLedger,
        placed: PlacedTenant,
        served: ServedModel,
        max_context: int = 0,
        page_size: int = 0,
    ) -> None:
        self._ledger = ledger
        self._number = placed.number
        self._asked = placed.memory, placed.is_hard
        self._served = served
        self._max_context = max_context
        self._page_size = page_size

    def resize(self, num_bytes: int, is_hard: bool, restores: bool = False) -> ServedModel | None:
        """The model as it is served with so many bytes here; None where that is as before.

        Args:
            restores: as the ledger has it.

        Raises:
            LedgerError: others leave less, or it uses more.
        """
        asked = num_bytes, is_hard
        # How many pages it has may be said by the config, and not by its bytes.
        if asked == self._asked:
            return None
        num_pages = self._ledger.resize(self._number, num_bytes, is_hard=is_hard, restores=restores)
        self._asked = asked
        if not num_pages:
            return None
        most = min(self._max_context, num_pages * self._page_size)
        return replace(self._served, context_length=most)
