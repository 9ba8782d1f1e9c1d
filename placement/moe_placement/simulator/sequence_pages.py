"""Pages as the stand-in's sequences use them: matched, grown into, and left behind."""

from moe_placement.simulator.page_cache import PageCache, PageKey
from moe_placement.simulator.scheduler import SchedulerLimits
from moe_placement.simulator.sequence import Phase, Sequence


class SequencePages:
    """Joins the cache with what the running sequences are about to compute for others."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.page_size = limits.page_size
        self._prefix_caching = limits.prefix_caching
        self.cache = PageCache(limits.num_pages)
        self._expected: dict[PageKey, Sequence] = {}

    def match(self, sequence: Sequence) -> list[PageKey]:
        """Keys of the sequence's longest computed prefix, short of its last token's page.

        The last token is always computed anew, for its logits.
        """
        keys = self._shareable(sequence)
        return keys[: self.cache.match(keys)]

    def waits(self, sequence: Sequence) -> bool:
        """Whether a running sequence has yet to compute what this one awaits."""
        return sequence.awaited in self._expected

    def defer(self, sequence: Sequence, num_matched: int) -> bool:
        """Let a sequence wait for a running one that computes its next page, if there is one."""
        keys = self._shareable(sequence)
        num_common = num_matched
        while num_common < len(keys) and keys[num_common] in self._expected:
            num_common += 1
        if num_common > num_matched:
            sequence.awaited = keys[num_common - 1]
        return num_common > num_matched

    def num_wanted(self, sequence: Sequence, matched: list[PageKey]) -> int:
        """Available pages that it takes to hold all the sequence's tokens."""
        return self._num_pages(sequence) - self.cache.num_in_use(matched)

    def place(self, sequence: Sequence, matched: list[PageKey]) -> None:
        """Give the sequence its matched pages, and room for the rest of its tokens."""
        # Before anything is allocated, which could evict them.
        self.cache.share(matched)
        sequence.num_pages = self._num_pages(sequence)
        sequence.num_committed = len(matched)
        self.cache.allocate(sequence.num_pages - len(matched))
        sequence.num_computed = max(len(matched) * self.page_size, sequence.num_received)
        # Gone with the pages, should it lose them.
        sequence.num_received = 0
        for key in self._shareable(sequence)[len(matched) :]:
            self._expected.setdefault(key, sequence)

    def commit(self, sequence: Sequence) -> None:
        """Name the pages that are full and computed, so that others find them."""
        num_full = sequence.num_computed // self.page_size
        if not self._prefix_caching or num_full <= sequence.num_committed:
            return
        keys = sequence.page_keys(num_full, self.page_size)[sequence.num_committed :]
        for key in keys:
            self.cache.commit(key)
        self._drop_expected(sequence, keys)
        sequence.num_committed = num_full

    def release(self, sequence: Sequence, phase: Phase) -> None:
        """Take all the sequence's pages; those with a key stay until they are evicted."""
        self.commit(sequence)
        self._drop_expected(sequence, sequence.keys[sequence.num_committed :])
        self.cache.free(sequence.num_pages - sequence.num_committed)
        self.cache.release(sequence.keys[: sequence.num_committed])
        sequence.reset(phase)

    def _drop_expected(self, sequence: Sequence, keys: list[PageKey]) -> None:
        for key in keys:
            if self._expected.get(key) is sequence:
                del self._expected[key]

    def _shareable(self, sequence: Sequence) -> list[PageKey]:
        if not self._prefix_caching or sequence.num_received:
            return []
        return sequence.page_keys((sequence.num_tokens - 1) // self.page_size, self.page_size)

    def _num_pages(self, sequence: Sequence) -> int:
        return -(-sequence.num_tokens // self.page_size)
