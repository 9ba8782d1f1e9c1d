"""Which rank gets a request: the least loaded one, counting what its prefix cache would save.

The rule of the engine's own router, so that a simulation spreads requests as the engine does.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moe_placement.simulator.scheduler import RefusedError, SimulatedRequest

RoutingPolicy = Literal["prefix", "least_loaded", "round_robin"]

# One more running sequence weighs as much as this many prompt tokens to compute.
_TOKENS_PER_SEQUENCE = 256
_MAX_BLOCKS = 1 << 16


class FullError(RefusedError):
    """All ranks hold as many requests as they may."""


@dataclass(slots=True, eq=False)
class Target:
    """A rank as the router sees it.

    Attributes:
        max_live: requests that it may hold; 0 is no limit.
        away: 0 while it takes requests; failures add one each.
    """

    worker: int
    rank: int
    weight: float = 1.0
    max_live: int = 0
    num_live: int = 0
    away: int = 0

    @property
    def has_room(self) -> bool:
        return not 0 < self.max_live <= self.num_live


class Router:
    """Remembers which prompts went where; a guess of each rank's prefix cache, never the truth."""

    def __init__(self, targets: Sequence[Target], policy: RoutingPolicy) -> None:
        self.targets = tuple(targets)
        self._policy = policy
        self._num_picked = 0
        self._blocks: OrderedDict[int, set[int]] = OrderedDict()

    def pick(self, request: SimulatedRequest) -> Target | None:
        """The rank for a request, which then counts as live there; None if all are away.

        Raises:
            FullError: no rank that is there has room for it now.
        """
        there = [index for index, target in enumerate(self.targets) if not target.away]
        if not there:
            return None
        free = [index for index in there if self.targets[index].has_room]
        if not free:
            raise FullError(
                f"request {request.request_id} found all {len(there)} ranks full; send fewer, "
                "or raise max_live"
            )
        index = self._choose(free, request)
        self.targets[index].num_live += 1
        self._num_picked += 1
        return self.targets[index]

    def _choose(self, free: list[int], request: SimulatedRequest) -> int:
        if self._policy == "round_robin":
            return free[self._num_picked % len(free)]
        known = [0] * len(self.targets)
        if self._policy == "prefix":
            self._count_known(request, known)
        index = min(free, key=lambda index: self._load(self.targets[index]) - known[index])
        if self._policy == "prefix":
            self._remember(request, index)
        return index

    def _load(self, target: Target) -> float:
        return target.num_live * _TOKENS_PER_SEQUENCE / target.weight

    def _count_known(self, request: SimulatedRequest, known: list[int]) -> None:
        """Tokens of the request's leading blocks that each target is thought to have."""
        holders: set[int] | None = None
        for number, block in enumerate(request.blocks, start=1):
            here = self._blocks.get(block, set())
            holders = here if holders is None else holders & here
            if not holders:
                return
            for index in holders:
                known[index] = min(number * request.block_tokens, request.prompt_tokens)

    def _remember(self, request: SimulatedRequest, index: int) -> None:
        for block in request.blocks:
            self._blocks.setdefault(block, set()).add(index)
            self._blocks.move_to_end(block)
        while len(self._blocks) > _MAX_BLOCKS:
            self._blocks.popitem(last=False)
