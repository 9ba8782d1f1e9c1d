"""One request while the stand-in scheduler holds it."""

from enum import Enum

from moe_placement.simulator.page_cache import PageKey
from moe_placement.simulator.scheduler import SimulatedRequest


class Phase(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Sequence:
    """A request's state; while it decodes, the group it decodes in counts its tokens.

    Attributes:
        num_tokens: of the prompt and the answer so far; the last one is not computed yet.
        num_computed: leading tokens whose keys and values are in the pages.
        num_received: of them, those that another rank computed and sent.
        num_committed: leading pages that have a key in the cache.
        num_wanted: available pages that its last try at admission asked for.
        order: of its admission.
        ticket: of its last stay in the decoding group.
        awaited: the key that a running sequence is about to compute for this one too.
    """

    __slots__ = (
        "awaited",
        "keys",
        "num_committed",
        "num_computed",
        "num_generated",
        "num_pages",
        "num_received",
        "num_wanted",
        "order",
        "phase",
        "request",
        "ticket",
        "was_admitted",
    )

    def __init__(self, request: SimulatedRequest, num_received: int) -> None:
        self.request = request
        self.num_generated = 0
        self.num_received = num_received
        self.was_admitted = False
        self.keys: list[PageKey] = []
        self.order = self.ticket = 0
        self.reset(Phase.WAITING)

    def reset(self, phase: Phase) -> None:
        """Forget all that was computed; the tokens stay."""
        self.phase = phase
        self.num_computed = 0
        self.num_pages = 0
        self.num_committed = 0
        self.num_wanted = 0
        self.awaited: PageKey | None = None

    @property
    def num_tokens(self) -> int:
        return self.request.prompt_tokens + self.num_generated

    @property
    def num_uncomputed(self) -> int:
        return self.num_tokens - self.num_computed

    @property
    def num_left(self) -> int:
        """Tokens still to generate."""
        return self.request.output_tokens - self.num_generated

    def page_keys(self, num_pages: int, page_size: int) -> list[PageKey]:
        """Keys of the first pages, all of them full."""
        for index in range(len(self.keys), num_pages):
            self.keys.append(_page_key(self.request, index, page_size))
        return self.keys[:num_pages]


def _page_key(request: SimulatedRequest, index: int, page_size: int) -> PageKey:
    end = (index + 1) * page_size
    block = (end - 1) // request.block_tokens
    if end <= request.prompt_tokens and block < len(request.blocks):
        return request.blocks[block], end - block * request.block_tokens
    # Three numbers, so that no block's hash can be mistaken for a request's own page.
    return request.request_id, index, 0
