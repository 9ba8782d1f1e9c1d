"""Sequences whose prompt one rank computes for another, at both ends.

Where it is decoded, such a sequence waits until it is offered, is then admitted with pages for the
whole prompt, and arrives: when its keys and values have landed in them, its last token alone is
left to compute. Where its prompt is computed it runs like any other, samples nothing, and keeps
its pages at the end until it is aborted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.schedule.page_cache import PageCache
from moe_serve.schedule.sequence import Phase, Sequence
from moe_serve.types import Request


@dataclass(frozen=True, slots=True)
class HeldPages:
    """What a sequence holds now.

    Attributes:
        num_computed: leading tokens whose keys and values lie in the pages.
    """

    page_ids: tuple[int, ...]
    num_computed: int


class Handovers:
    """
    Args:
        waiting, running: the scheduler's own, by request id.
    """

    def __init__(
        self, cache: PageCache, waiting: Mapping[str, Sequence], running: Mapping[str, Sequence]
    ) -> None:
        self._cache = cache
        self._waiting = waiting
        self._running = running
        self._admitted: list[Sequence] = []

    def start(self, sequence: Sequence) -> None:
        """Note an admitted sequence of either end."""
        if sequence.comes_from_afar:
            sequence.phase = Phase.ARRIVING
        self._admitted.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Stop a sequence that is computed for another rank where all of it is computed."""
        if sequence.num_uncomputed == 0:
            sequence.phase = Phase.HANDED_OVER

    def take_admitted(self) -> list[Request]:
        """Requests of either end that were admitted since the last call, and hold pages."""
        admitted, self._admitted = self._admitted, []
        return [each.request for each in admitted if self.held(each.request_id) is not None]

    def is_expected(self, request_id: str) -> bool:
        """Whether a sequence waits, with or without pages, for another rank."""
        sequence = self._find(request_id)
        return sequence is not None and sequence.comes_from_afar

    def held(self, request_id: str) -> HeldPages | None:
        """None for a sequence that does not hold pages, or holds them for itself alone."""
        sequence = self._running.get(request_id)
        if sequence is None or (sequence.samples and not sequence.comes_from_afar):
            return None
        return HeldPages(sequence.page_ids, sequence.num_computed)

    def offer(self, request_id: str) -> None:
        """The other rank has begun: the sequence may have pages."""
        self._waiting[request_id].was_offered = True

    def land(self, request_id: str) -> None:
        """The pages hold all tokens but the last one."""
        sequence = self._running[request_id]
        assert sequence.phase is Phase.ARRIVING, f"{request_id} is {sequence.phase.value}"
        sequence.num_computed = len(sequence.token_ids) - 1
        self._cache.commit(sequence)
        self._run(sequence)

    def compute_here(self, request_id: str) -> None:
        """Nothing, or no more, comes from the other rank."""
        sequence = self._find(request_id)
        assert sequence is not None, f"{request_id} is not live"
        self._run(sequence)

    def _run(self, sequence: Sequence) -> None:
        sequence.comes_from_afar = False
        if sequence.phase is Phase.ARRIVING:
            sequence.phase = Phase.RUNNING

    def _find(self, request_id: str) -> Sequence | None:
        return self._running.get(request_id) or self._waiting.get(request_id)
