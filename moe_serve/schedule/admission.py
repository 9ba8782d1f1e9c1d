"""Who may enter: what can be served at all, and who had better wait for a neighbour's pages."""

from collections.abc import Iterable

from moe_serve.errors import ConfigError, OverloadedError, RequestError
from moe_serve.schedule.page_budget import PageBudget
from moe_serve.schedule.page_cache import PageCache
from moe_serve.schedule.prefix_tree import Block, Node
from moe_serve.schedule.sequence import Sequence, pages_of
from moe_serve.types import Request


def check_limits(
    num_pages: int, page_size: int, max_tokens_per_step: int, max_sequences: int, max_context: int
) -> None:
    """Raise ConfigError for a limit, by its config key, that lets nothing through."""
    limits = {
        "cache.num_pages": num_pages,
        "cache.page_size": page_size,
        "scheduler.max_tokens_per_step": max_tokens_per_step,
        "scheduler.max_sequences": max_sequences,
        "model.max_context": max_context,
    }
    for key, value in limits.items():
        if value < 1:
            raise ConfigError(f"{key} is {value} when serving starts; it must be at least 1")


class Entrance:
    """What may be queued at all.

    Args:
        max_live: requests, running and waiting.
        max_context: tokens of prompt and answer.
        pages_key: what to raise in the config for more pages.
    """

    def __init__(
        self,
        max_live: int,
        max_context: int,
        page_size: int,
        budget: PageBudget,
        pages_key: str,
    ) -> None:
        self._max_live = max_live
        self._max_context = max_context
        self._page_size = page_size
        self._budget = budget
        self._pages_key = pages_key

    def check(self, request: Request) -> None:
        """Raise RequestError for one that could not be finished even if it were alone."""
        num_prompt, max_tokens = len(request.prompt_ids), request.sampling.max_tokens
        if num_prompt == 0:
            raise RequestError("the prompt has 0 tokens; give at least 1", "prompt")
        if max_tokens < 1:
            raise RequestError(f"max_tokens is {max_tokens}; ask for at least 1", "max_tokens")
        num_tokens = num_prompt + max_tokens
        asked = f"{num_prompt} prompt tokens and max_tokens {max_tokens} make {num_tokens} tokens"
        advice = "shorten the prompt or lower max_tokens"
        parameter = "prompt" if num_prompt >= self._max_context else "max_tokens"
        if num_tokens > self._max_context:
            message = f"{asked}, the context holds {self._max_context}; {advice}"
            raise RequestError(message, parameter)
        num_needed = pages_of(num_tokens, self._page_size)
        if num_needed > self._budget.guaranteed:
            message = (
                f"{asked} in {num_needed} cache pages of {self._page_size}, the rank has "
                f"{self._budget.guaranteed}; {advice}, or raise {self._pages_key}"
            )
            raise RequestError(message, parameter)

    def check_load(self, request: Request, num_live: int) -> None:
        """Raise OverloadedError where no more may be queued."""
        if num_live >= self._max_live and not request.was_admitted:
            raise OverloadedError(
                f"{num_live} requests run or wait on this rank, {self._max_live} may; "
                "try again later, or raise scheduler.max_waiting"
            )


class Forerunners:
    """Running sequences by the block they compute next.

    A sequence that needs such a block stays in the queue until it is computed, then shares it;
    so the choices of one prompt, or many prompts behind one system prompt, that arrive together
    are computed once. The wait ends too when the forerunner is preempted or ends.
    """

    def __init__(self, cache: PageCache, running: Iterable[Sequence]) -> None:
        self._cache = cache
        self._by_block: dict[tuple[Node, Block], Sequence] = {}
        for sequence in running:
            self.enlist(sequence)

    def enlist(self, sequence: Sequence) -> None:
        """Note the next block of a sequence that is in its prefill."""
        cache, index = self._cache, sequence.num_committed
        if not cache.prefix_caching or sequence.num_uncomputed <= 1 or sequence.node is None:
            return
        block = sequence.block(index, cache.page_size)
        if len(block) == cache.page_size:
            self._by_block.setdefault((sequence.node, block), sequence)

    def defer(self, sequence: Sequence, matched: list[Node]) -> bool:
        """Let a waiting sequence wait for a running one, where that saves it computing."""
        cache, index = self._cache, len(matched)
        if not self._by_block or index >= cache.num_shareable(sequence):
            return False
        node = matched[-1] if matched else cache.tree.root(sequence.request.tenant)
        ahead = self._by_block.get((node, sequence.block(index, cache.page_size)))
        if ahead is None:
            return False
        num_pages = self._num_common_pages(sequence, ahead, index)
        sequence.wait_for(ahead, num_pages * cache.page_size)
        return True

    def _num_common_pages(self, sequence: Sequence, ahead: Sequence, index: int) -> int:
        size, limit = self._cache.page_size, self._cache.num_shareable(sequence)
        while index < limit and sequence.block(index, size) == ahead.block(index, size):
            index += 1
        return index
