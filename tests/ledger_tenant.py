"""One tenant of a ledger, with a fake device that forgets pages that are given back."""

from collections.abc import Callable, Sequence
from typing import Any

from moe_serve.schedule.ledger import MemoryLedger
from moe_serve.types import Request


class Tenant:
    """One tenant's world, within its budget.

    Attributes:
        booked: bytes of its weights.
        in_turn: bytes that it needs in its steps alone.
    """

    def __init__(
        self,
        make_world: Callable[..., Any],
        ledger: MemoryLedger,
        number: int,
        pages: dict[str, Any],
        **limits: Any,
    ) -> None:
        is_fixed = pages.pop("is_fixed")
        self.number = number
        self.booked = self.in_turn = 0
        self.budget = ledger.open_pages(number, discard=None if is_fixed else self.discard, **pages)
        self.world = make_world(num_pages=self.budget.capacity, budget=self.budget, **limits)
        self.cache = self.world.scheduler._cache
        self._give_back = self.cache.give_back
        self.cache.give_back = self.give_back

    def give_back(self, num_pages: int) -> list[int]:
        if num_pages > self.cache.pool.num_free:
            left = self.budget.num_held - num_pages
            assert left >= self.budget.guaranteed, "a promised page is taken from a cache"
        page_ids: list[int] = self._give_back(num_pages)
        return page_ids

    def discard(self, page_ids: Sequence[int]) -> None:
        memory = self.world.memory
        in_tree = self.cache.tree.page_ids
        assert in_tree.isdisjoint(page_ids), "a page of the prefix tree is discarded"
        for slot in [slot for slot in memory if slot[0] in page_ids]:
            del memory[slot]

    def check(self) -> None:
        budget = self.budget
        self.world.check_pages()
        assert budget.num_held == self.cache.pool.num_held, "budget and pool hold different pages"
        assert budget.num_held <= budget.limit, "a tenant is beyond its limit"
        pool = self.cache.pool
        absent = {*pool._absent, *range(len(pool._references), pool.num_pages)}
        assert all(page_id not in absent for page_id, _ in self.world.memory), "not discarded"
        promised = budget.guaranteed - budget.num_held
        assert budget.num_obtainable >= promised, "a promise cannot be kept"

    @property
    def oldest(self) -> Any:
        return next(iter(self.world.scheduler._running.values()), None)

    @property
    def num_needed(self) -> int:
        """Guaranteed pages that its live requests keep it from giving up."""
        world = self.world
        longest = max(
            [
                pages_of(request, world)
                for name, request in world.requests.items()
                if world.is_live(name)
            ],
            default=0,
        )
        return max(longest, min(world.scheduler.num_pages_used, self.budget.guaranteed))


def pages_of(request: Request, world: Any) -> int:
    num_tokens = len(request.prompt_ids) + request.sampling.max_tokens
    return -(-(num_tokens - 1) // world.page_size)
