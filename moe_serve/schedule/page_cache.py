"""Pages as sequences use them: matched at admission, grown by decoding, left behind at the end."""

from moe_serve.schedule.ledger import pages_alone
from moe_serve.schedule.page_budget import PageBudget
from moe_serve.schedule.pages import PagePool
from moe_serve.schedule.prefix_tree import Node, PrefixTree
from moe_serve.schedule.sequence import Phase, Sequence


class PageCache:
    """Joins the pool and the prefix tree; each page that takes memory is free, used by a sequence,
    or cached.

    Args:
        num_pages: of the cache.
        budget: how many of them may take memory; None is all of them.
    """

    def __init__(
        self,
        *,
        num_pages: int,
        page_size: int,
        prefix_caching: bool,
        budget: PageBudget | None = None,
    ) -> None:
        self.page_size = page_size
        self.prefix_caching = prefix_caching
        self.budget = budget or pages_alone(num_pages)
        assert self.budget.capacity == num_pages, "the budget is of another cache"
        self.pool = PagePool(num_pages, self.budget.num_held)
        self.tree = PrefixTree(self.pool)

    @property
    def num_available(self) -> int:
        """Pages to be had without taking any from a sequence of this tenant."""
        return self.pool.num_free + self.tree.num_idle + self.budget.num_obtainable

    @property
    def num_used(self) -> int:
        """Pages that sequences hold."""
        return self.pool.num_held - self.pool.num_free - self.tree.num_idle

    @property
    def num_cached(self) -> int:
        """Pages that only the prefix tree holds."""
        return self.tree.num_idle

    def match(self, sequence: Sequence) -> list[Node]:
        """Nodes of the sequence's longest computed prefix, short of its last token's page.

        The last token is always computed anew, for its logits.
        """
        if not self.prefix_caching:
            return []
        blocks = sequence.blocks(self.num_shareable(sequence), self.page_size)
        return self.tree.match(sequence.request.tenant, blocks)

    def num_shareable(self, sequence: Sequence) -> int:
        """Leading pages that are full without the sequence's last token."""
        return (len(sequence.token_ids) - 1) // self.page_size

    def num_wanted(self, sequence: Sequence, matched: list[Node]) -> int:
        """Available pages that it takes to hold all the sequence's tokens."""
        num_in_use = sum(not self.tree.is_idle(node) for node in matched)
        return self._num_pages(sequence) - num_in_use

    def place(self, sequence: Sequence, matched: list[Node]) -> None:
        """Give the sequence its matched pages, and room for the rest of its tokens."""
        # Before anything is allocated, which could evict them.
        for node in matched:
            self.tree.acquire(node)
        new_ids = self._allocate(self._num_pages(sequence) - len(matched))
        sequence.page_ids = (*(node.page_id for node in matched), *new_ids)
        sequence.node = matched[-1] if matched else self.tree.root(sequence.request.tenant)
        sequence.num_committed = len(matched)
        sequence.num_computed = len(matched) * self.page_size

    def grow(self, sequence: Sequence) -> bool:
        """Make room for the sequence's newest token; False where no page is available."""
        if len(sequence.token_ids) <= len(sequence.page_ids) * self.page_size:
            return True
        if not self.num_available:
            return False
        sequence.page_ids = (*sequence.page_ids, *self._allocate(1))
        return True

    def commit(self, sequence: Sequence) -> None:
        """Put the sequence's newly filled and computed pages into the prefix tree."""
        if not self.prefix_caching:
            return
        while (sequence.num_committed + 1) * self.page_size <= sequence.num_computed:
            self._commit_page(sequence)

    def release(self, sequence: Sequence, phase: Phase) -> None:
        """Take the sequence's pages; those in the tree stay there until they are evicted."""
        for page_id in reversed(sequence.page_ids):
            self.tree.release(page_id)
        sequence.reset(phase)

    def give_back(self, num_pages: int) -> list[int]:
        """Hold so many pages less, first of those that hold nothing, then of cached ones -> ids."""
        self._evict_until(num_pages)
        return self.pool.remove(num_pages)

    def _num_pages(self, sequence: Sequence) -> int:
        return -(-len(sequence.token_ids) // self.page_size)

    def _allocate(self, num_pages: int) -> list[int]:
        """From those that hold nothing, then what is promised or used by nobody, then the own
        prefix tree, and last what other tenants have borrowed for theirs."""
        pool = self.pool
        if (missing := num_pages - pool.num_free) > 0:
            pool.add(self.budget.take(missing))
        self._evict_until(num_pages)
        if (missing := num_pages - pool.num_free) > 0:
            pool.add(self.budget.take_cached(missing))
        assert pool.num_free >= num_pages, "admitted or grown beyond the available pages"
        return [pool.allocate() for _ in range(num_pages)]

    def _evict_until(self, num_free: int) -> None:
        while self.pool.num_free < num_free and self.tree.evict():
            pass

    def _commit_page(self, sequence: Sequence) -> None:
        assert sequence.node is not None
        index = sequence.num_committed
        page_id = sequence.page_ids[index]
        node = self.tree.insert(sequence.node, sequence.block(index, self.page_size), page_id)
        if node.page_id != page_id:
            self._replace_page(sequence, index, node)
        sequence.node = node
        sequence.num_committed += 1

    def _replace_page(self, sequence: Sequence, index: int, node: Node) -> None:
        # Another sequence has computed the same block; holding its page instead of a copy keeps
        # the rule that whoever holds a page of the tree holds those above it.
        page_ids = list(sequence.page_ids)
        self.tree.acquire(node)
        self.tree.release(page_ids[index])
        page_ids[index] = node.page_id
        sequence.page_ids = tuple(page_ids)
