"""Which ranks get a request: the least loaded, counting what their prefix caches would save."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from moe_serve.errors import OverloadedError, RequestError

# One more running sequence weighs as much as this many prompt tokens to compute.
_TOKENS_PER_SEQUENCE = 256
_MAX_BLOCKS = 1 << 16


@dataclass(frozen=True, slots=True)
class Route:
    """Attributes:
    rank: generates.
    prefill_rank: computes the prompt for it; None if that is not worth it.
    """

    rank: int
    prefill_rank: int | None = None


class Router:
    """Remembers which prompts went where; a guess of each rank's prefix cache, never the truth.

    Args:
        weights: each rank's share of the requests; 0 takes none.
        block_size: tokens in a cache page; 0 where ranks keep no prefixes.
        max_live: sequences that one rank may hold, running and waiting.
        prefill_ranks: those that compute prompts for the others.
        max_local_prefill: tokens of a prompt, beyond those cached, up to which it is not worth
            asking one of them.
    """

    def __init__(
        self,
        weights: Sequence[float],
        block_size: int,
        max_live: int,
        prefill_ranks: Sequence[int] = (),
        max_local_prefill: int = 1,
    ) -> None:
        self._weights = list(weights)
        self._max_local_prefill = max_local_prefill
        self._prefilling = dict.fromkeys(prefill_ranks, 0)
        self._block_size = block_size
        self._max_live = max_live
        self._live = [0] * len(weights)
        self._lost: frozenset[int] = frozenset()
        self._blocks: OrderedDict[int, set[int]] = OrderedDict()

    def pick(self, prompt_ids: Sequence[int], num_sequences: int) -> Route:
        """Ranks for a request's `num_sequences` choices, which then count as live there.

        Raises:
            RequestError: more choices than a rank may ever hold.
            OverloadedError: no rank has room for them now.
        """
        blocks = self._block_hashes(prompt_ids)
        ranks = self._ranks_with_room(num_sequences)
        rank, num_known = self._choose(ranks, blocks, len(prompt_ids), num_sequences)
        if len(prompt_ids) - num_known <= self._max_local_prefill:
            return Route(rank)
        return Route(rank, self._pick_prefill(blocks, num_sequences * len(prompt_ids)))

    def move(self, rank: int, token_ids: Sequence[int]) -> int:
        """Where a sequence goes on that this rank has lost, however full that is: it was admitted.

        Raises:
            OverloadedError: no rank is left.
        """
        ranks = self._ranks_left()
        self.finish(rank)
        return self._choose(ranks, self._block_hashes(token_ids), len(token_ids), 1)[0]

    def exclude(self, ranks: Collection[int]) -> None:
        """Ranks that are lost; their caches with them."""
        self._lost = frozenset(ranks)
        self.forget_caches(ranks)

    def forget_caches(self, ranks: Collection[int]) -> None:
        """Of ranks that have started anew."""
        for known in self._blocks.values():
            known.difference_update(ranks)

    def finish_prefill(self, rank: int, num_tokens: int) -> None:
        """One sequence's prompt is computed there, or no longer wanted."""
        self._prefilling[rank] -= num_tokens

    def finish(self, rank: int) -> None:
        """One sequence of this rank has ended."""
        self._live[rank] -= 1

    def _choose(
        self, ranks: Sequence[int], blocks: Sequence[int], num_tokens: int, num_sequences: int
    ) -> tuple[int, int]:
        """The best of some ranks, and how many of the tokens it has probably cached."""
        rank = min(ranks, key=lambda rank: (self._cost(rank, blocks, num_tokens), rank))
        num_known = self._num_known(rank, blocks)
        self._remember(blocks, rank)
        self._live[rank] += num_sequences
        return rank, num_known

    def _pick_prefill(self, blocks: Sequence[int], num_tokens: int) -> int | None:
        ranks = [rank for rank in self._prefilling if rank not in self._lost]
        if not ranks:
            return None

        def cost(rank: int) -> int:
            return self._prefilling[rank] - self._num_known(rank, blocks)

        rank = min(ranks, key=lambda rank: (cost(rank), rank))
        self._remember(blocks, rank)
        self._prefilling[rank] += num_tokens
        return rank

    def _ranks_with_room(self, num_sequences: int) -> list[int]:
        if num_sequences > self._max_live:
            raise RequestError(
                f"{num_sequences} choices are more than the {self._max_live} requests that a rank "
                "may hold; ask for fewer, or raise scheduler.max_waiting",
                "n",
            )
        ranks = self._ranks_left()
        free = [rank for rank in ranks if self._live[rank] + num_sequences <= self._max_live]
        if not free:
            fewest = min(self._live[rank] for rank in ranks)
            raise OverloadedError(
                f"{fewest} requests or more run or wait on each rank, {self._max_live} may, and "
                f"{num_sequences} came; try again later, or raise scheduler.max_waiting"
            )
        return free

    def _ranks_left(self) -> list[int]:
        ranks = [
            rank
            for rank, weight in enumerate(self._weights)
            if weight > 0 and rank not in self._lost
        ]
        if not ranks:
            raise OverloadedError(
                "every rank that serves this model is lost; start its pool again, then try again"
            )
        return ranks

    def _cost(self, rank: int, blocks: Sequence[int], num_tokens: int) -> float:
        load = self._live[rank] * _TOKENS_PER_SEQUENCE / self._weights[rank]
        return load + num_tokens - self._num_known(rank, blocks)

    def _num_known(self, rank: int, blocks: Sequence[int]) -> int:
        """Leading tokens of a prompt that a rank has probably cached."""
        missing = (
            index for index, block in enumerate(blocks) if rank not in self._blocks.get(block, ())
        )
        return next(missing, len(blocks)) * self._block_size

    def _block_hashes(self, prompt_ids: Sequence[int]) -> list[int]:
        hashes: list[int] = []
        previous = 0
        if not self._block_size:
            return hashes
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
