"""Which rank gets a request: the least loaded one, counting what its prefix cache would save."""

from collections import OrderedDict
from collections.abc import Sequence

from moe_serve.errors import OverloadedError, RequestError

# One more running sequence weighs as much as this many prompt tokens to compute.
_TOKENS_PER_SEQUENCE = 256
_MAX_BLOCKS = 1 << 16


class Router:
    """Remembers which prompts went where; a guess of each rank's prefix cache, never the truth.

    Args:
        weights: each rank's share of the requests; 0 takes none.
        block_size: tokens in a cache page.
        max_live: sequences that one rank may hold, running and waiting.
    """

    def __init__(self, weights: Sequence[float], block_size: int, max_live: int) -> None:
        self._weights = list(weights)
        self._block_size = block_size
        self._max_live = max_live
        self._live = [0] * len(weights)
        self._blocks: OrderedDict[int, set[int]] = OrderedDict()

    def pick(self, prompt_ids: Sequence[int], num_sequences: int) -> int:
        """The rank for a request's `num_sequences` choices, which then count as live there.

        Raises:
            RequestError: more choices than a rank may ever hold.
            OverloadedError: no rank has room for them now.
        """
        ranks = self._ranks_with_room(num_sequences)
        blocks = self._block_hashes(prompt_ids)
        rank = min(ranks, key=lambda rank: (self._cost(rank, blocks, len(prompt_ids)), rank))
        self._remember(blocks, rank)
        self._live[rank] += num_sequences
        return rank

    def finish(self, rank: int) -> None:
        """One sequence of this rank has ended."""
        self._live[rank] -= 1

    def _ranks_with_room(self, num_sequences: int) -> list[int]:
        if num_sequences > self._max_live:
            raise RequestError(
                f"{num_sequences} choices are more than the {self._max_live} requests that a rank "
                "may hold; ask for fewer, or raise scheduler.max_waiting",
                "n",
            )
        ranks = [rank for rank, weight in enumerate(self._weights) if weight > 0]
        free = [rank for rank in ranks if self._live[rank] + num_sequences <= self._max_live]
        if not free:
            fewest = min(self._live[rank] for rank in ranks)
            raise OverloadedError(
                f"{fewest} requests or more run or wait on each rank, {self._max_live} may, and "
                f"{num_sequences} came; try again later, or raise scheduler.max_waiting"
            )
        return free

    def _cost(self, rank: int, blocks: Sequence[int], num_tokens: int) -> float:
        known = 0
        for block in blocks:
            if rank not in self._blocks.get(block, ()):
                break
            known += 1
        load = self._live[rank] * _TOKENS_PER_SEQUENCE / self._weights[rank]
        return load + num_tokens - known * self._block_size

    def _block_hashes(self, prompt_ids: Sequence[int]) -> list[int]:
        hashes, previous = [], 0
        for end in range(self._block_size, len(prompt_ids) + 1, self._block_size):
            previous = hash((previous, tuple(prompt_ids[end - self._block_size : end])))
            hashes.append(previous)
        return hashes

    def _remember(self, blocks: Sequence[int], rank: int) -> None:
        for block in blocks:
            self._blocks.setdefault(block, set()).add(rank)
            self._blocks.move_to_end(block)
        while len(self._blocks) > _MAX_BLOCKS:
            self._blocks.popitem(last=False)
