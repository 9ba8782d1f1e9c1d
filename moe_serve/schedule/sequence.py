"""One request while it lives: its tokens, how far they are computed, and the pages they lie in."""

from collections.abc import Iterator
from enum import Enum

from moe_serve.schedule.prefix_tree import Block, Node
from moe_serve.types import FinishReason, Request, SampledToken, TokenEvent


class Phase(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class Sequence:
    """A request's state in the scheduler, which alone changes it.

    Attributes:
        token_ids: the prompt and all that was generated; the last one is not computed yet.
        num_computed: leading tokens whose keys and values lie in the pages.
        page_ids: in the order of the tokens; rebuilt when a page comes, not at each step.
        node: of the last page that is in the prefix tree; None while not running.
        num_committed: leading pages that are in the prefix tree.
        num_cached: prompt tokens found in the prefix tree when first admitted.
        num_wanted: available pages that its last try at admission asked for.
    """

    __slots__ = (
        "_stop_ids",
        "forerunner",
        "node",
        "num_cached",
        "num_committed",
        "num_computed",
        "num_expected",
        "num_prompt",
        "num_wanted",
        "page_ids",
        "phase",
        "request",
        "token_ids",
        "was_admitted",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.token_ids = list(request.prompt_ids)
        self.num_prompt = len(request.prompt_ids)
        self.num_cached = 0
        self.was_admitted = False
        end_ids = () if request.sampling.ignore_eos else request.end_token_ids
        self._stop_ids = frozenset((*end_ids, *request.sampling.stop_token_ids))
        self.reset(Phase.WAITING)

    def reset(self, phase: Phase) -> None:
        """Forget all that was computed; the tokens stay."""
        self.phase = phase
        self.num_computed = 0
        self.page_ids: tuple[int, ...] = ()
        self.node: Node | None = None
        self.num_committed = 0
        self.num_wanted = 0
        self.forerunner: Sequence | None = None
        self.num_expected = 0

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_uncomputed(self) -> int:
        return len(self.token_ids) - self.num_computed

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the newest token is the last one; None where it is not."""
        if self.token_ids[-1] in self._stop_ids:
            return "stop"
        return "length" if self.num_generated >= self.request.sampling.max_tokens else None

    def block(self, index: int, page_size: int) -> Block:
        """The tokens of page `index`; fewer than page_size where the page is not full."""
        return tuple(self.token_ids[index * page_size : (index + 1) * page_size])

    def blocks(self, num_blocks: int, page_size: int) -> Iterator[Block]:
        return (self.block(index, page_size) for index in range(num_blocks))

    def wait_for(self, forerunner: "Sequence", num_tokens: int) -> None:
        """Stay in the queue while `forerunner` computes `num_tokens` that both begin with."""
        self.forerunner, self.num_expected = forerunner, num_tokens

    @property
    def awaits_forerunner(self) -> bool:
        ahead = self.forerunner
        return (
            ahead is not None
            and ahead.phase is Phase.RUNNING
            and ahead.num_computed < self.num_expected
        )

    def event(
        self,
        index: int,
        token: SampledToken | None = None,
        finish_reason: FinishReason | None = None,
    ) -> TokenEvent:
        """News of token `index`, or without a token of the end; the first tells what was cached."""
        return TokenEvent(
            request_id=self.request.request_id,
            index=index,
            token_id=None if token is None else token.token_id,
            logprob=None if token is None else token.logprob,
            top_logprobs=() if token is None else token.top_logprobs,
            finish_reason=finish_reason,
            num_cached_tokens=self.num_cached if index == 0 else 0,
        )
